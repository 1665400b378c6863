//! What comes in that is too large for a frame, no plausible number, or left out, and is said so.
