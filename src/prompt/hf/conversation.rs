//! Conversations in which others speak between the model's replies, as ids that are only ever appended to.

use minijinja::Value;
use minijinja::value::ValueKind;
use serde::{Deserialize, Serialize};

use super::ChatTokenizer;
use super::continuation::Continuation;
use super::rendering::Rendering;
use super::values::{strings, values};
use crate::prompt::Tokenizer;
use crate::types::{Message, ToolCall};
use crate::{Error, Result};

/// What becomes of a conversation whose template writes its history otherwise than it was sampled.
///
/// A rollout's ids are those that were sampled, so the observations after a reply have to be a text that is appended. Templates give
/// whole conversations. The appended text is therefore the difference of two renderings: of a question with a reply of the same shape
/// as the last one (its content, reasoning and calls), under the conversation's system prompt, tools and variables, and of the
/// same with the observations behind it. It begins after the token that closes the reply, and is encoded together with that token.
///
/// Some templates cannot be appended to: they drop the reasoning of earlier replies, insert an empty one into the last reply, move
/// the tools to the last question, or close the last reply with a token of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum History {
    /// Such a conversation is refused, with the first text that differs: the prompt has to be a prefix of the rendered reply,
    /// and the reply up to its last stop token a prefix of what it grows to.
    #[default]
    Strict,
    /// The ids stay as sampled, and what follows the reply's close in the rewritten conversation is appended. The model then reads
    /// another text than the template would give for the same conversation.
    Keep,
}

/// A reply and what follows it, in [`ChatTokenizer::check_conversation`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Exchange {
    /// Whether the reply has `reasoning_content`.
    pub reasoning: bool,
    /// How many tools the reply calls. Each call is answered by a result; if there is none, a turn of the user follows.
    pub calls: usize,
}

/// The ids of observations.
pub(super) struct Observed {
    pub(super) ids: Vec<u32>,
    /// Where the template rewrites the history that was kept.
    pub(super) rewritten: Option<Error>,
}

impl ChatTokenizer {
    /// Checks at set-up that conversations of these shapes can be continued: each exchange three times in a row, then all of them one
    /// after the other, twice. Calls are of the first of the `tools`, with and without content beside them.
    ///
    /// `opening` is how the conversations begin; without a question in it one is added. Every check is made again with
    /// the real messages at each turn.
    ///
    /// Under [`History::Keep`] a warning is logged for each exchange after which the template rewrites the history.
    ///
    /// ```no_run
    /// use rlvr::prompt::hf::{ChatTokenizer, Exchange};
    ///
    /// let tokenizer = ChatTokenizer::from_folder("SmolLM2-135M-Instruct")?.with_system("Use the calculator.");
    /// let tools = r#"[{"type": "function", "function": {"name": "add", "description": "Adds numbers."}}]"#;
    /// let calls = |calls| Exchange { calls, ..Exchange::default() };
    /// tokenizer.check_conversation(&[], Some(tools), &[calls(1), calls(2)])?;
    /// # Ok::<(), rlvr::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`encode_conversation`](Tokenizer::encode_conversation) and [`encode_observations`](Tokenizer::encode_observations),
    /// with the exchange that is refused.
    pub fn check_conversation(
        &self,
        opening: &[Message],
        tools: Option<&str>,
        exchanges: &[Exchange],
    ) -> Result<()> {
        let mut opening = opening.to_vec();
        if !opening.iter().any(|message| message.role == "user") {
            opening.push(Message::user("A question."));
        }
        self.begin(&opening, tools)?;
        let name = first_tool(tools).unwrap_or_else(|| "tool".to_owned());
        let alone = exchanges.iter().map(|exchange| vec![*exchange; 3]);
        let together = [exchanges, exchanges].concat();
        for exchanges in alone.chain([together]) {
            for content in ["", "Some words."] {
                let mut conversation = opening.clone();
                let mut warned = Vec::new();
                for exchange in &exchanges {
                    let (reply, observations) = exchange.messages(&name, content);
                    conversation.push(reply);
                    let observed = self.observe(&conversation, tools, &observations);
                    let observed = observed.map_err(|error| exchange.refused(error))?;
                    if let Some(rewritten) = observed.rewritten
                        && !warned.contains(exchange)
                        && exchanges.iter().all(|other| other == exchange)
                    {
                        warned.push(*exchange);
                        tracing::warn!(after = %exchange.description(), %rewritten, "the history will be kept as sampled");
                    }
                    conversation.extend(observations);
                }
            }
        }
        Ok(())
    }

    /// The ids of a conversation's beginning.
    pub(super) fn begin(&self, messages: &[Message], tools: Option<&str>) -> Result<Vec<u32>> {
        if messages.is_empty() {
            return Err(Error::config("messages", "none", "at least one message"));
        }
        let variables = self.variables_with(tools)?;
        self.ids(&self.with_own_system(messages.to_vec()), &variables, true)
    }

    /// The ids of what follows a reply.
    pub(super) fn observe(
        &self,
        conversation: &[Message],
        tools: Option<&str>,
        observations: &[Message],
    ) -> Result<Observed> {
        let reply = reply_before(conversation, observations)?;
        let variables = self.variables_with(tools)?;
        let messages = self.with_own_system([conversation, observations].concat());
        let values_of_all = values(&messages)?;
        let rendering =
            Rendering::new(&self.template, &self.tokenizer, &variables, &values_of_all)?;

        let mut used = variables.strings();
        used.extend(values_of_all.iter().flat_map(strings));
        let mut sentinel = "END_OF_REPLY".to_owned();
        while used.iter().any(|text| text.contains(&sentinel)) {
            sentinel.push('_');
        }
        let system = messages.iter().take_while(|message| is_system(message));
        let mut base: Vec<Message> = system.cloned().collect();
        base.extend([Message::user("A question."), tagged(reply, &sentinel)]);

        let base = rendering.marked(values(&base)?);
        let all = rendering.marked(values_of_all);
        let question = &base[..base.len() - 1];
        let observed = &all[all.len() - observations.len()..];
        let continuation = Continuation {
            rendering: &rendering,
            prompt: rendering.render(question, true)?,
            question: rendering.render(question, false)?,
            before: rendering.render(&base, false)?,
            after: rendering.render(&[&base, observed].concat(), true)?,
            sentinel: &sentinel,
        };
        let (appended, rewritten) = match (continuation.strict(), self.history) {
            (Ok(appended), _) => (appended, None),
            (Err(error), History::Strict) => return Err(error),
            (Err(error), History::Keep) => (continuation.kept()?, Some(error)),
        };
        continuation.check(&appended.text, observations, &rendering.render(&all, true)?)?;
        let close = self.token_id(appended.close.trim());
        let ids = continuation.ids(&appended, close, &self.prefix)?;
        Ok(Observed { ids, rewritten })
    }

    /// The template's variables with the tools, of which none is not an empty list: templates announce even that.
    fn variables_with(&self, tools: Option<&str>) -> Result<super::Variables> {
        let Some(text) = tools else {
            return Ok(self.variables.clone());
        };
        let refused = |reason: String| {
            let expected = format!("a JSON list of tools{reason}");
            Error::config("tools", format!("{text:?}"), expected)
        };
        let list: Value =
            serde_json::from_str(text).map_err(|error| refused(format!(": {error}")))?;
        match (list.kind(), list.len()) {
            (ValueKind::Seq, Some(0)) => Ok(self.variables.clone()),
            (ValueKind::Seq, _) => Ok(self.variables.clone().set("tools", list)),
            _ => Err(refused(String::new())),
        }
    }

    /// The messages behind the tokenizer's system prompt, if they have none of their own.
    fn with_own_system(&self, messages: Vec<Message>) -> Vec<Message> {
        match &self.system {
            Some(system) if !messages.iter().any(is_system) => {
                let mut with_system = vec![Message::system(system)];
                with_system.extend(messages);
                with_system
            }
            _ => messages,
        }
    }
}

impl Exchange {
    /// The exchange as messages; a call has content beside it if there is any, a reply without calls always has some.
    fn messages(self, tool: &str, content: &str) -> (Message, Vec<Message>) {
        let id = |call: usize| format!("call{call:05}");
        let call = |call| ToolCall {
            id: id(call),
            name: tool.to_owned(),
            arguments: r#"{"value": "something"}"#.to_owned(),
        };
        let result = |call| Message {
            tool_call_id: Some(id(call)),
            ..Message::tool(tool, format!("The result of call {call}."))
        };
        let mut reply = Message::assistant(match self.calls {
            0 => "An answer.",
            _ => content,
        });
        reply.reasoning_content = self.reasoning.then(|| "A thought.".to_owned());
        reply.tool_calls = (0..self.calls).map(call).collect();
        let observations = match self.calls {
            0 => vec![Message::user("Another question.")],
            calls => (0..calls).map(result).collect(),
        };
        (reply, observations)
    }

    fn description(self) -> String {
        let reply = match self.reasoning {
            true => "a reply with reasoning",
            false => "a reply without reasoning",
        };
        match self.calls {
            0 => format!("a turn of the user after {reply}"),
            1 => format!("the result of a call after {reply}"),
            calls => format!("the results of {calls} calls after {reply}"),
        }
    }

    fn refused(self, error: Error) -> Error {
        match error {
            Error::Config {
                field,
                value,
                expected,
            } => Error::Config {
                field: format!("{field} ({})", self.description()),
                value,
                expected,
            },
            other => other,
        }
    }
}

/// The reply at the end of the conversation, if observations can follow it.
fn reply_before<'a>(conversation: &'a [Message], observations: &[Message]) -> Result<&'a Message> {
    let spoken = |message: &&Message| message.role == "assistant";
    if let Some(at) = observations.iter().position(|message| spoken(&message)) {
        let found = format!("message {at} of the role `assistant`");
        let expected = "what others say: the model's own turns are sampled";
        return Err(Error::config("observations", found, expected));
    }
    if observations.is_empty() {
        return Err(Error::config(
            "observations",
            "none",
            "at least one message",
        ));
    }
    let last = conversation.last();
    last.filter(spoken).ok_or_else(|| {
        let found = match last {
            Some(last) => format!("a last message of the role `{}`", last.role),
            None => "no messages".to_owned(),
        };
        Error::config(
            "conversation",
            found,
            "the model's reply, of the role `assistant`, at the end",
        )
    })
}

fn is_system(message: &Message) -> bool {
    matches!(message.role.as_str(), "system" | "developer")
}

/// The reply with a sentinel at the end of what it says and of its last call's arguments. A call without content stays so, because
/// templates tell the two apart.
fn tagged(reply: &Message, sentinel: &str) -> Message {
    let mut tagged = reply.clone();
    if tagged.tool_calls.is_empty() || !tagged.content.trim().is_empty() {
        tagged.content.push_str(sentinel);
    }
    let last = tagged.tool_calls.last_mut();
    if let Some(call) = last
        && let Some(fields) = call.arguments.trim_end().strip_suffix('}')
    {
        let comma = match fields.trim_end().ends_with('{') {
            true => "",
            false => ", ",
        };
        call.arguments = format!(r#"{fields}{comma}"{sentinel}": "{sentinel}"}}"#);
    }
    tagged
}

/// The name of the first tool in a JSON list.
fn first_tool(tools: Option<&str>) -> Option<String> {
    let tools: serde_json::Value = serde_json::from_str(tools?).ok()?;
    let tool = tools.get(0)?;
    let name = tool.get("function").unwrap_or(tool).get("name")?;
    Some(name.as_str()?.to_owned())
}
