//! `stats` and `update`.

use clap::Args;
use rlrun_engine::request::limits::{self, LimitRequest, Swap};
use rlrun_spec::Failure;

/// `rlrun stats`.
#[derive(Args, Debug)]
pub(crate) struct StatsArgs {
    /// Names or ids; all that run without any
    #[arg(value_name = "CONTAINER")]
    pub(crate) names: Vec<String>,
    /// Those that do not run, too
    #[arg(short, long)]
    pub(crate) all: bool,
    /// The newest one
    #[arg(short, long)]
    pub(crate) latest: bool,
    /// json, a Go template, or `table TEMPLATE`
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
    /// Once, and end
    #[arg(long)]
    pub(crate) no_stream: bool,
    /// One list below the other, instead of in its place
    #[arg(long)]
    pub(crate) no_reset: bool,
    /// Whole ids
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Seconds between two looks
    #[arg(short, long, value_name = "SECONDS", default_value_t = 5)]
    pub(crate) interval: u32,
}

/// `rlrun update`.
#[derive(Args, Debug)]
pub(crate) struct UpdateArgs {
    /// Name or id
    #[arg(value_name = "CONTAINER", required_unless_present = "latest", conflicts_with = "latest")]
    pub(crate) name: Option<String>,
    /// The newest one
    #[arg(short, long)]
    pub(crate) latest: bool,
    /// Memory; 0 for no limit
    #[arg(short, long, value_name = "SIZE")]
    memory: Option<String>,
    /// Memory and swap together; -1 for all there is
    #[arg(long, value_name = "SIZE", allow_negative_numbers = true)]
    memory_swap: Option<String>,
    /// Memory that is left to the container when others want it
    #[arg(long, value_name = "SIZE")]
    memory_reservation: Option<String>,
    /// CPUs, 0.5 is half of one; 0 for no limit
    #[arg(long, value_name = "NUMBER")]
    cpus: Option<String>,
    /// Period of --cpu-quota in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_period: Option<String>,
    /// Processor time in each period; -1 for no limit
    #[arg(long, value_name = "MICROSECONDS", allow_negative_numbers = true)]
    cpu_quota: Option<String>,
    /// Weight beside others, 1024 is the usual
    #[arg(short = 'c', long, value_name = "NUMBER")]
    cpu_shares: Option<String>,
    /// CPUs to run on
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Weight of block IO, 10 to 1000; 0 for the usual
    #[arg(long, value_name = "NUMBER")]
    blkio_weight: Option<String>,
    /// Reading rate of a device; 0 for no limit
    #[arg(long, value_name = "DEVICE:RATE")]
    device_read_bps: Vec<String>,
    /// Writing rate of a device; 0 for no limit
    #[arg(long, value_name = "DEVICE:RATE")]
    device_write_bps: Vec<String>,
    /// Reading operations of a device in a second; 0 for no limit
    #[arg(long, value_name = "DEVICE:NUMBER")]
    device_read_iops: Vec<String>,
    /// Writing operations of a device in a second; 0 for no limit
    #[arg(long, value_name = "DEVICE:NUMBER")]
    device_write_iops: Vec<String>,
    /// Processes and threads; -1 for no limit
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pids_limit: Option<String>,
}

impl UpdateArgs {
    /// Changes what was given.
    pub(crate) fn apply(&self, to: &mut LimitRequest) -> Result<(), Failure> {
        match self.memory.as_deref() {
            None => {}
            Some("0") => (to.memory, to.memory_swap, to.memory_reservation) = (None, None, None),
            Some(word) => to.memory = Some(limits::size("--memory", word)?),
        }
        if let Some(word) = &self.memory_swap {
            to.memory_swap = Some(limits::swap(word)?);
        } else if let (Some(memory), Some(Swap::AtMost(both))) = (to.memory, to.memory_swap)
            && self.memory.is_some()
            && both < memory
        {
            // As much swap as memory again.
            to.memory_swap = None;
        }
        if let Some(word) = &self.memory_reservation {
            to.memory_reservation = Some(limits::size("--memory-reservation", word)?);
        }
        self.apply_cpu(to)?;
        self.apply_block_io(to)?;
        if let Some(word) = &self.pids_limit {
            to.pids = Some(limits::pids(word)?);
        }
        Ok(())
    }

    fn rates(&self) -> [&Vec<String>; 4] {
        [&self.device_read_bps, &self.device_write_bps, &self.device_read_iops, &self.device_write_iops]
    }

    /// What is said of a device takes the place of what was said of it.
    fn apply_block_io(&self, to: &mut LimitRequest) -> Result<(), Failure> {
        const WEIGHT: &str = "--blkio-weight";
        if let Some(weight) = &self.blkio_weight {
            to.block_io.retain(|(option, _)| option != WEIGHT);
            if weight != "0" {
                limits::block_weight(weight)?;
                to.block_io.push((WEIGHT.to_owned(), weight.clone()));
            }
        }
        for ((option, _), words) in limits::DEVICE_RATES.into_iter().zip(self.rates()) {
            for word in words {
                let wanted = limits::device_rate(option, word);
                if wanted.is_none_or(|(_, rate)| rate > 0) {
                    limits::rate(option, word)?;
                }
                let same = |other: &str| {
                    wanted.map(|(path, _)| path) == limits::device_rate(option, other).map(|(path, _)| path)
                };
                to.block_io.retain(|(name, other)| name != option || !same(other));
                if wanted.is_some_and(|(_, rate)| rate > 0) {
                    to.block_io.push((option.to_owned(), word.clone()));
                }
            }
        }
        Ok(())
    }

    /// `--cpus` takes the place of a quota, and the other way round.
    fn apply_cpu(&self, to: &mut LimitRequest) -> Result<(), Failure> {
        match self.cpus.as_deref() {
            None => {}
            Some("0") => (to.cpu_millis, to.cpu_quota, to.cpu_period) = (None, None, None),
            Some(word) => (to.cpu_millis, to.cpu_quota, to.cpu_period) = (Some(limits::cpus(word)?), None, None),
        }
        if let Some(word) = &self.cpu_quota {
            to.cpu_quota = limits::quota(word)?;
            if self.cpus.is_none() {
                to.cpu_millis = None;
            }
            if to.cpu_quota.is_none() {
                to.cpu_period = None;
            }
        }
        if let Some(word) = &self.cpu_period {
            to.cpu_period = Some(limits::number("--cpu-period", word, limits::PERIODS)?);
        }
        if let Some(word) = &self.cpu_shares {
            to.cpu_shares = Some(limits::number("--cpu-shares", word, limits::SHARES)?);
        }
        if let Some(word) = &self.cpuset_cpus {
            to.cpuset = Some(limits::cpuset(word)?);
        }
        Ok(())
    }

    /// Whether anything was given.
    pub(crate) fn is_empty(&self) -> bool {
        let all = [
            &self.memory,
            &self.memory_swap,
            &self.memory_reservation,
            &self.cpus,
            &self.cpu_period,
            &self.cpu_quota,
            &self.cpu_shares,
            &self.cpuset_cpus,
            &self.blkio_weight,
            &self.pids_limit,
        ];
        all.into_iter().all(Option::is_none) && self.rates().into_iter().all(Vec::is_empty)
    }
}
