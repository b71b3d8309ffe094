//! Reading tar archives that were written to harm: ustar, GNU and pax headers, long names, sparse files. Every length is
//! checked before it is believed, memory does not grow with the archive, and a path is bytes, never resolved here.

mod header;
mod pax;
mod reader;
mod sparse;

pub(crate) use reader::{Entry, Kind, TarReader};
pub(crate) use sparse::SparseMap;

/// Why an archive cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TarError {
    /// The archive is not what it must be.
    #[error("{0}")]
    Malformed(String),
    /// The system could not read it.
    #[error("{0}")]
    Io(std::io::Error),
}

impl TarError {
    pub(crate) fn malformed(why: impl Into<String>) -> Self {
        TarError::Malformed(why.into())
    }
}

impl From<std::io::Error> for TarError {
    /// Only the kernel's errors are the system's; the rest come from decompressors and are the archive's fault.
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            _ if error.raw_os_error().is_some() => TarError::Io(error),
            std::io::ErrorKind::UnexpectedEof => TarError::malformed("it is truncated"),
            _ => TarError::malformed(error.to_string()),
        }
    }
}
