//! What a policy may use. Fuel, not time, bounds the work, so a verdict does not depend on the machine's load. What an
//! operation costs (`engine::costs`) follows the time that it can take, so fuel bounds that too: nothing that a policy
//! can do takes longer than about 15 ns a unit. Work on this side has limits of its own.

/// For one hook call; a typical one uses 100 000, and 100 million take 15 ms to 1.5 s.
pub(crate) const HOOK_FUEL: u64 = 100_000_000;
/// For instantiation and `lifecycle.init`.
pub(crate) const INIT_FUEL: u64 = 500_000_000;
/// What a signature or an attestation counts as among what imported functions hand over.
pub(crate) const FACT_BYTES: usize = 256;
/// What a look into an image counts as beside that: it reads files.
pub(crate) const LOOK_BYTES: usize = 4 << 20;
/// For all questions of one evaluation together: each port, mount and secret is one.
pub(crate) const SESSION_FUEL: u64 = 500_000_000;
/// What of a question's fuel does not count towards that: thousands of ports may be published.
pub(crate) const FREE_FUEL: u64 = 50_000;
/// Bytes that the imported functions hand over and take in one evaluation; each call counts as [`CALL_BYTES`] more.
pub(crate) const IMPORT_BYTES: usize = 64 << 20;
/// See there.
pub(crate) const CALL_BYTES: usize = 4 << 10;
/// Bytes of linear memory, all memories of a component together.
pub(crate) const MEMORY_BYTES: usize = 64 << 20;
/// Elements of all tables together.
pub(crate) const TABLE_ELEMENTS: usize = 100_000;
/// Core instances, memories and tables; components made from interpreted languages need more than 16.
pub(crate) const INSTANCES: usize = 64;
/// Bytes that a policy may hand over in one call: an answer, a log line.
pub(crate) const OUTPUT_BYTES: usize = 1 << 20;
/// Bytes of a request.
pub(crate) const INPUT_BYTES: usize = 4 << 20;
/// Findings of one answer.
pub(crate) const DIAGNOSTICS: usize = 64;
/// Restrictions of one answer.
pub(crate) const RESTRICTIONS: usize = 1024;
/// Bytes of one message; longer ones are cut.
pub(crate) const MESSAGE_BYTES: usize = 2048;
/// Log lines of one evaluation; further ones are dropped.
pub(crate) const LOG_LINES: usize = 256;
/// Bytes of a policy file.
pub(crate) const POLICY_BYTES: u64 = 64 << 20;
/// Bytes of a settings file or of one datum.
pub(crate) const SETTINGS_BYTES: u64 = 1 << 20;
