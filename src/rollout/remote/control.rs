//! Control requests to a server: description, health, and loading of weights.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::config::{Protocol, RemoteConfig};
use super::http::{Client, Kind, Reply, Trouble};

const VLLM_FLAGS: &str =
    "start vLLM (0.16 or later) with the environment variable VLLM_SERVER_DEV_MODE=1";
const LORA_FLAGS: &str = "start vLLM with --enable-lora --max-lora-rank R --max-loras 2 and the environment variable \
    VLLM_ALLOW_RUNTIME_LORA_UPDATING=1; SGLang with --enable-lora and --max-lora-rank, --lora-target-modules";
const SGLANG_FLAGS: &str =
    "see SGLang's log; the engine and this process must see the folder under the same path";

/// The time limit of requests that need no work.
const SHORT: Duration = Duration::from_secs(10);

/// A server's description of itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Served {
    /// The name of the model.
    pub model: String,
    /// The folder that its weights came from, if reported.
    pub root: Option<String>,
    /// The maximum number of tokens of a prompt with its completion, if reported.
    pub context: Option<usize>,
}

/// The handling of requests in flight while weights are loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pause {
    /// Requests are suspended and continue with the new weights.
    Keep { recompute: bool },
    /// Requests end and return the tokens so far.
    Abort,
}

/// The control requests to one server.
#[derive(Clone, Debug)]
pub(super) struct Control {
    pub client: Client,
    protocol: Protocol,
    load_timeout: Duration,
}

impl Control {
    pub(super) fn new(protocol: Protocol, url: &str, config: &RemoteConfig) -> Self {
        Self {
            client: config.client(url),
            protocol,
            load_timeout: config.load_timeout,
        }
    }

    fn get(&self, path: &str) -> Result<Reply, Trouble> {
        self.client
            .get(path, SHORT)
            .map_err(|trouble| at(path, trouble))
    }

    fn post(&self, path: &str, body: &Value) -> Result<Reply, Trouble> {
        let reply = self.client.post(path, body, self.load_timeout);
        reply.map_err(|trouble| at(path, trouble))
    }

    /// Posts a command. A missing endpoint is reported as a missing flag.
    fn command(&self, path: &str, body: &Value, flags: &str) -> Result<Reply, Trouble> {
        let reply = self.post(path, body)?;
        let missing = matches!(reply.status, 403..=405);
        reply.accepted().map_err(|trouble| match missing {
            true => at(
                path,
                Trouble {
                    remedy: flags.into(),
                    ..trouble
                },
            ),
            false => at(path, trouble),
        })
    }

    /// Checks that the server can generate.
    pub(super) fn health(&self) -> Result<(), Trouble> {
        let path = match self.protocol {
            // SGLang's /health does not test generation.
            Protocol::Sglang => "/health_generate",
            _ => "/health",
        };
        let reply = self.get(path)?;
        reply.accepted().map_err(|trouble| at(path, trouble))?;
        Ok(())
    }

    /// Requests the server's description.
    pub(super) fn describe(&self) -> Result<Served, Trouble> {
        let path = "/v1/models";
        let models = self.get(path)?.accepted().and_then(|reply| reply.json());
        let models = models.map_err(|trouble| at(path, trouble))?;
        let entries = models["data"].as_array().into_iter().flatten();
        let mut own = entries.filter(|entry| entry["parent"].is_null());
        let Some((entry, model)) = own.find_map(|entry| Some((entry, entry["id"].as_str()?)))
        else {
            return Err(at(path, Trouble::wrong("it lists no models")));
        };
        Ok(Served {
            model: model.to_string(),
            root: entry["root"].as_str().map(str::to_string),
            context: entry["max_model_len"]
                .as_u64()
                .map(|length| length as usize),
        })
    }

    /// Requests the label of the weights, if the server supports labels.
    pub(super) fn label(&self) -> Result<Option<String>, Trouble> {
        let path = match self.protocol {
            Protocol::Sglang => "/model_info",
            _ => "/weight_info",
        };
        let reply = self.get(path)?;
        if reply.status == 404 {
            return Ok(None);
        }
        let info = reply.accepted().and_then(|reply| reply.json());
        let info = info.map_err(|trouble| at(path, trouble))?;
        Ok(super::protocol::label(&info["weight_version"]))
    }

    /// Pauses generation.
    pub(super) fn pause(&self, how: Pause) -> Result<(), Trouble> {
        if self.protocol == Protocol::Sglang {
            let mode = match how {
                Pause::Abort => "abort",
                Pause::Keep { recompute: true } => "retract",
                Pause::Keep { recompute: false } => "in_place",
            };
            self.command("/pause_generation", &json!({"mode": mode}), SGLANG_FLAGS)?;
            return Ok(());
        }
        let (mode, clear) = match how {
            Pause::Abort => ("abort", true),
            Pause::Keep { recompute } => ("keep", recompute),
        };
        let path = format!("/pause?mode={mode}&clear_cache={clear}");
        self.command(&path, &json!({}), VLLM_FLAGS)?;
        Ok(())
    }

    /// Resumes generation.
    pub(super) fn resume(&self) -> Result<(), Trouble> {
        let path = match self.protocol {
            Protocol::Sglang => "/continue_generation",
            _ => "/resume",
        };
        self.command(path, &json!({}), VLLM_FLAGS)?;
        Ok(())
    }

    /// Loads the weights of `folder` into the paused server and labels them. Returns whether the
    /// server accepted the label.
    pub(super) fn load(&self, folder: &Path, label: &str, how: Pause) -> Result<bool, Trouble> {
        match self.protocol {
            Protocol::Sglang => self.load_sglang(folder, label, how),
            _ => self.load_vllm(folder, label),
        }
    }

    fn load_vllm(&self, folder: &Path, label: &str) -> Result<bool, Trouble> {
        let arguments = json!({"weights_path": folder});
        let body = json!({"method": "reload_weights", "kwargs": arguments});
        self.command("/collective_rpc", &body, VLLM_FLAGS)?;
        let path = "/update_weight_version";
        let labelled = self.post(path, &json!({"new_version": label}))?;
        let labels = match labelled.status {
            404 => false, // before 0.27
            _ => {
                labelled.accepted().map_err(|trouble| at(path, trouble))?;
                true
            }
        };
        // This fails if suspended requests hold blocks; requests are salted by version as well.
        let path = "/reset_prefix_cache";
        let reset = self.post(path, &json!({}))?.accepted();
        let reset = reset.map_err(|trouble| at(path, trouble))?;
        let success = reset
            .json()
            .ok()
            .and_then(|answer| answer["success"].as_bool());
        if success != Some(true) {
            tracing::debug!(label, answer = reset.text, "the prefix cache was not reset");
        }
        Ok(labels)
    }

    fn load_sglang(&self, folder: &Path, label: &str, how: Pause) -> Result<bool, Trouble> {
        let path = "/update_weights_from_disk";
        let body = json!({
            "model_path": folder,
            "weight_version": label,
            // The cache cannot be flushed while requests are suspended in place; requests are
            // salted by version as well.
            "flush_cache": how != Pause::Keep { recompute: false },
            "abort_all_requests": false,
        });
        let reply = self.command(path, &body, SGLANG_FLAGS)?;
        let answer = reply.json().map_err(|trouble| at(path, trouble))?;
        match answer["success"].as_bool() {
            Some(true) => Ok(true),
            _ => {
                let message = super::protocol::brief(&answer["message"]);
                Err(at(path, Trouble::new(Kind::Failing, message, SGLANG_FLAGS)))
            }
        }
    }

    /// Loads the adapter in `folder` under a new name.
    pub(super) fn load_adapter(&self, folder: &Path, name: &str) -> Result<(), Trouble> {
        let path = match self.protocol {
            Protocol::Sglang => "/load_lora_adapter",
            _ => "/v1/load_lora_adapter",
        };
        let body = json!({"lora_name": name, "lora_path": folder});
        let reply = self.command(path, &body, LORA_FLAGS)?;
        // vLLM answers with text, SGLang with a success flag.
        match reply
            .json()
            .ok()
            .and_then(|answer| answer["success"].as_bool())
        {
            Some(false) => Err(at(
                path,
                Trouble::new(Kind::Failing, reply.text, LORA_FLAGS),
            )),
            _ => Ok(()),
        }
    }

    pub(super) fn unload_adapter(&self, name: &str) -> Result<(), Trouble> {
        let path = match self.protocol {
            Protocol::Sglang => "/unload_lora_adapter",
            _ => "/v1/unload_lora_adapter",
        };
        self.command(path, &json!({"lora_name": name}), LORA_FLAGS)?;
        Ok(())
    }
}

/// Adds the path to a failure.
fn at(path: &str, trouble: Trouble) -> Trouble {
    Trouble {
        reason: format!("{path}: {}", trouble.reason),
        ..trouble
    }
}
