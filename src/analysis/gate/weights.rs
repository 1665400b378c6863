//! Weights of the gate, written by `scripts/train-local`.

/// One weight for each feature, in the order of the features.
pub(super) const WEIGHTS: [f32; 12] = [
    // words
    -4.5178, // new_words
    -6.6809, // said_words
    -0.5926, // new_numbers
    -1.4287, // said_numbers
    1.6818,  // asks
    -3.7056, // answers
    -8.3511, // courtesy
    2.6995,  // assent
    0.3402,  // denial
    -3.7578, // acting
    -1.8487, // bare
    -1.3168,
];
/// A turn whose weighted sum of features is above this adds nothing.
pub(super) const CUT: f32 = -1.6087;
