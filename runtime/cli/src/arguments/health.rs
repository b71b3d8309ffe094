//! `--health-*`: names and meanings are podman's.

use clap::Args;
use rlrun_engine::request::health::{self, HealthRequest};
use rlrun_spec::Failure;
use rlrun_spec::health::{DEFAULT_INTERVAL_MS, OnFailure, Startup};

/// How a container's health is checked.
#[derive(Args, Debug)]
#[command(next_help_heading = "Health")]
pub(crate) struct HealthArgs {
    /// Command that tells by its exit code whether the container is well, or none
    #[arg(long, alias = "healthcheck-command", value_name = "COMMAND")]
    health_cmd: Option<String>,
    /// Time between two checks (default 30s), or disable
    #[arg(long, value_name = "DURATION")]
    health_interval: Option<String>,
    /// Time that a check may take (default 30s)
    #[arg(long, value_name = "DURATION")]
    health_timeout: Option<String>,
    /// Failures in a row that make it unhealthy (default 3)
    #[arg(long, value_name = "NUMBER")]
    health_retries: Option<u32>,
    /// Time after the start in which failures do not count
    #[arg(long, value_name = "DURATION")]
    health_start_period: Option<String>,
    /// What unhealthy means: none, kill, restart or stop
    #[arg(long, value_name = "ACTION")]
    health_on_failure: Option<String>,
    /// Command to check with until it has succeeded; the other one comes after it
    #[arg(long, value_name = "COMMAND")]
    health_startup_cmd: Option<String>,
    /// Time between two checks of the start
    #[arg(long, value_name = "DURATION")]
    health_startup_interval: Option<String>,
    /// Time that a check of the start may take
    #[arg(long, value_name = "DURATION")]
    health_startup_timeout: Option<String>,
    /// Failures of the start in a row that make it unhealthy; 0 for any number
    #[arg(long, value_name = "NUMBER")]
    health_startup_retries: Option<u32>,
    /// Successes that end the start
    #[arg(long, value_name = "NUMBER")]
    health_startup_success: Option<u32>,
    /// Check nothing, whatever the image says
    #[arg(long)]
    no_healthcheck: bool,
}

impl HealthArgs {
    /// Reads every word.
    pub(crate) fn request(&self) -> Result<HealthRequest, Failure> {
        if self.no_healthcheck {
            return Ok(HealthRequest { command: Some(Vec::new()), ..HealthRequest::default() });
        }
        let time = |option, word: &Option<String>, least| {
            word.as_deref().map(|word| health::duration(option, word, least)).transpose()
        };
        Ok(HealthRequest {
            command: self.health_cmd.as_deref().map(|word| health::command("--health-cmd", word)).transpose()?,
            interval_ms: self
                .health_interval
                .as_deref()
                .map(|word| health::interval("--health-interval", word))
                .transpose()?,
            timeout_ms: time("--health-timeout", &self.health_timeout, 1)?,
            retries: self.health_retries,
            start_period_ms: time("--health-start-period", &self.health_start_period, 0)?,
            on_failure: self.health_on_failure.as_deref().map_or(Ok(OnFailure::None), health::on_failure)?,
            startup: self.startup()?,
        })
    }

    fn startup(&self) -> Result<Option<Startup>, Failure> {
        let Some(word) = &self.health_startup_cmd else { return Ok(None) };
        let time = |option, word: &Option<String>| match word.as_deref() {
            Some(word) => health::duration(option, word, 1),
            None => Ok(DEFAULT_INTERVAL_MS),
        };
        let command = health::command("--health-startup-cmd", word)?;
        Ok((!command.is_empty()).then_some(Startup {
            command,
            interval_ms: time("--health-startup-interval", &self.health_startup_interval)?,
            timeout_ms: time("--health-startup-timeout", &self.health_startup_timeout)?,
            retries: self.health_startup_retries.unwrap_or(0),
            successes: self.health_startup_success.unwrap_or(0),
        }))
    }
}
