//! Behaviour of the real binary, by contract.
