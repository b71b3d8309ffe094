//! Seccomp filters: the default profile as data, profiles from files, and their compiled form (seccomp(2)).
