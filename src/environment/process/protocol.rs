//! The messages of the protocol; see the table in the module documentation.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::super::contract::{Reply, Step, StepEnd};
use super::super::json_text::{JsonText, shortened};
use crate::fnv::Fnv;
use crate::types::{FinishReason, Message, Problem};

/// A request or notification.
#[derive(Serialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub(super) enum Request<'a> {
    Open {
        id: u64,
        episode: u64,
        problem: &'a Problem,
        seed: u64,
    },
    Step {
        id: u64,
        episode: u64,
        text: &'a str,
        finish: FinishReason,
        turn: usize,
    },
    Close {
        episode: u64,
    },
}

impl<'a> Request<'a> {
    pub fn step(id: u64, episode: u64, reply: &Reply<'a>) -> Self {
        Self::Step {
            id,
            episode,
            text: reply.text,
            finish: reply.finish,
            turn: reply.turn,
        }
    }

    pub fn line(&self) -> String {
        // Serializing strings and numbers cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// An answer to `open`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Opened {
    #[serde(rename = "id")]
    _id: u64,
    pub messages: Option<MessageList>,
    pub tools: Option<JsonText>,
}

/// An answer to `step`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Stepped {
    #[serde(rename = "id")]
    _id: u64,
    observation: Option<MessageList>,
    reward: Option<f64>,
    end: Option<End>,
    message: Option<Message>,
    state: Option<State>,
    #[serde(default)]
    calls: BTreeMap<String, usize>,
}

/// A list of messages, or the text of a user message.
#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "expected a string or a list of messages with `role` and `content`"
)]
pub(super) enum MessageList {
    Text(String),
    Messages(Vec<Message>),
}

impl MessageList {
    pub fn messages(list: Option<Self>) -> Vec<Message> {
        match list {
            None => Vec::new(),
            Some(Self::Text(text)) => vec![Message::user(text)],
            Some(Self::Messages(messages)) => messages,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum End {
    Done,
    Truncated,
}

/// The identifier of a state: a number, or a string that is hashed.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a string or a 64-bit unsigned number")]
enum State {
    Number(u64),
    Text(String),
}

/// Reads an answer of type `T`.
pub(super) fn read<T: DeserializeOwned>(line: &str) -> Result<T, String> {
    #[derive(Deserialize)]
    struct Refusal {
        error: Option<String>,
    }

    if let Ok(Refusal { error: Some(error) }) = serde_json::from_str(line) {
        return Err(error);
    }
    serde_json::from_str(line)
        .map_err(|error| format!("its answer {:?}: {error}", shortened(line, 200)))
}

pub(super) fn read_step(line: &str) -> Result<Step, String> {
    let stepped: Stepped = read(line)?;
    Ok(Step {
        observation: MessageList::messages(stepped.observation),
        reward: stepped.reward,
        end: stepped.end.map(|end| match end {
            End::Done => StepEnd::Done,
            End::Truncated => StepEnd::Truncated,
        }),
        message: stepped.message,
        state: stepped.state.map(|state| match state {
            State::Number(number) => number,
            State::Text(text) => fingerprint(&text),
        }),
        calls: stepped.calls,
    })
}

fn fingerprint(text: &str) -> u64 {
    let mut hash = Fnv::default();
    hash.text(text);
    hash.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_an_answer_is_read() {
        let step = read_step(r#"{"id": 1, "observation": "5", "reward": 1, "calls": {"ok": 2}}"#);
        let step = step.unwrap();
        assert_eq!(step.observation, [Message::user("5")]);
        assert_eq!((step.reward, step.end, step.state), (Some(1.0), None, None));
        assert_eq!(step.calls["ok"], 2);
        let step = r#"{"id": 1, "observation": [{"role": "tool", "content": "5", "name": "f"}], "end": "truncated",
            "state": "a", "reward": null, "message": {"role": "assistant", "content": "x"}}"#;
        let step = read_step(step).unwrap();
        assert_eq!(step.observation, [Message::tool("f", "5")]);
        assert_eq!((step.reward, step.end), (None, Some(StepEnd::Truncated)));
        assert_eq!(step.state, Some(0xaf63_dc4c_8601_ec8c));
        assert_eq!(step.message, Some(Message::assistant("x")));
        let opened: Opened = read(r#"{"id": 1, "tools": [{"type": "function", "a": 1}]}"#).unwrap();
        assert_eq!(opened.tools.unwrap().0, r#"[{"type": "function", "a": 1}]"#);
        assert!(opened.messages.is_none());
    }

    #[test]
    fn errors_name_the_invalid_field() {
        let wrong = |line: &str| read_step(line).unwrap_err();
        assert_eq!(
            wrong(r#"{"id": 1, "error": "ValueError: x"}"#),
            "ValueError: x"
        );
        for (line, expected) in [
            (
                r#"{"id": 1, "observations": "5"}"#,
                "unknown field `observations`, expected",
            ),
            (r#"{"id": 1, "end": true}"#, "end"),
            (r#"{"id": 1, "end": "over"}"#, "`done` or `truncated`"),
            (
                r#"{"id": 1, "observation": {"role": "x"}}"#,
                "list of messages",
            ),
            (r#"{"id": 1, "state": -1}"#, "a 64-bit unsigned number"),
        ] {
            let error = wrong(line);
            assert!(error.contains(expected), "{line}: {error}");
            assert!(error.contains("its answer"), "{line}: {error}");
        }
    }
}
