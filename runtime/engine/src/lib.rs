//! the verbs of rlrun and the records of containers.
