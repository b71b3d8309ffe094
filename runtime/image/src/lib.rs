//! from a reference to extracted layers.
