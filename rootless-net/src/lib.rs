//! networks for a container without root.
