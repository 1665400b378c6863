//! Sockets and requests that do not read, do not send, ask for too much, or say whom they mean in a wrong way.
