//! from a sealed plan to a confined process.
