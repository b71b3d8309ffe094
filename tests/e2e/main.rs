//! The end-to-end tests: the real rlrun, black box, one module an area.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
