//! Multi-turn conversations as append-only token ids.

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

/// The rule for templates that change the history of a conversation.
///
/// A rollout keeps its sampled ids, so observations must be appended to them. A template, however,
/// renders whole conversations. The appended text is therefore the difference of two renderings: a
/// question followed by the last reply (its content, reasoning and calls), with the conversation's
/// system prompt, tools and variables; and the same followed by the observations. The text starts
/// after the token that closes the reply, and is encoded together with that token.
///
/// Some templates do not only append: they drop the reasoning of earlier replies, insert empty
/// reasoning into the last reply, move the tools to the last question, or close the last reply with
/// a different token.
///
/// ```no_run
/// use rlvr::prompt::hf::{ChatTokenizer, History};
///
/// let tokenizer =
///     ChatTokenizer::from_folder("Qwen3-0.6B")?.with_history(History::Keep);
/// # Ok::<(), rlvr::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum History {
    /// Such a conversation is an error, which has the first text that differs. The prompt must be a
    /// prefix of the prompt with the reply, and this, up to its last stop token, a prefix of the
    /// rendering with the observations.
    #[default]
    Strict,
    /// The sampled ids are kept, and the text after the close of the reply in the changed
    /// conversation is appended. The model then reads a text that differs from the template's
    /// rendering of the same conversation.
    Keep,
}

/// The shape of a reply and its observations, for [`ChatTokenizer::check_conversation`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Exchange {
    /// True if the reply has `reasoning_content`.
    pub reasoning: bool,
    /// The number of tool calls in the reply. Each is followed by a result; a reply without calls
    /// is followed by a message of the user.
    pub calls: usize,
}

/// The ids of observations.
pub(super) struct Observed {
    pub(super) ids: Vec<u32>,
    /// The error of [`History::Strict`], if the template changes the history.
    pub(super) rewritten: Option<Error>,
}

impl ChatTokenizer {
    /// Checks before a run that conversations of these shapes can be continued.
    ///
    /// Each exchange is tried three times in a row, then all exchanges in order, twice. The calls
    /// are of the first of the `tools`, with and without content. `opening` is the start of the
    /// conversations; a question is added if it has none. The same checks are repeated with the
    /// actual messages at each turn.
    ///
    /// With [`History::Keep`], a warning is logged for each exchange after which the template
    /// changes the history.
    ///
    /// ```no_run
    /// use rlvr::prompt::hf::{ChatTokenizer, Exchange};
    ///
    /// let tokenizer = ChatTokenizer::from_folder("SmolLM2-135M-Instruct")?
    ///     .with_system("Use the calculator.");
    /// let tools = r#"[{
    ///     "type": "function",
    ///     "function": {"name": "add", "description": "Adds numbers."}
    /// }]"#;
    /// let calls = |calls| Exchange { calls, ..Exchange::default() };
    /// tokenizer.check_conversation(&[], Some(tools), &[calls(1), calls(2)])?;
    /// # Ok::<(), rlvr::Error>(())
    /// ```
    ///
    /// # Errors
    /// The same as [`encode_conversation`](Tokenizer::encode_conversation) and
    /// [`encode_observations`](Tokenizer::encode_observations), with a description of the exchange.
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
        for content in ["", "Some words."] {
            let rehearse = |exchanges: &[Exchange]| {
                self.rehearse(&opening, tools, exchanges, (&name, content))
            };
            for exchange in exchanges {
                let rewritten = rehearse(&[*exchange; 3])?;
                if let Some(rewritten) = rewritten.filter(|_| content.is_empty()) {
                    let after = exchange.description();
                    tracing::warn!(after, %rewritten, "the template changes the history; the sampled ids are kept");
                }
            }
            rehearse(&[exchanges, exchanges].concat())?;
        }
        Ok(())
    }

    /// Continues a conversation with one exchange after the other. Returns the first place where
    /// the template changes the history.
    fn rehearse(
        &self,
        opening: &[Message],
        tools: Option<&str>,
        exchanges: &[Exchange],
        (tool, content): (&str, &str),
    ) -> Result<Option<Error>> {
        let mut conversation = opening.to_vec();
        let mut rewritten = None;
        for exchange in exchanges {
            let (reply, observations) = exchange.messages(tool, content);
            conversation.push(reply);
            let observed = self.observe(&conversation, tools, &observations);
            let observed = observed.map_err(|error| exchange.refused(error))?;
            rewritten = rewritten.or(observed.rewritten);
            conversation.extend(observations);
        }
        Ok(rewritten)
    }

    /// The ids of the start of a conversation.
    pub(super) fn begin(&self, messages: &[Message], tools: Option<&str>) -> Result<Vec<u32>> {
        if messages.is_empty() {
            return Err(Error::config("messages", "none", "at least one message"));
        }
        let variables = self.variables_with(tools)?;
        self.ids(&self.with_own_system(messages.to_vec()), &variables, true)
    }

    /// The ids to append after a reply.
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

    /// The template's variables with the tools. An empty list is omitted, because templates would
    /// announce it.
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

    /// The messages, after the tokenizer's system prompt if they have none.
    pub(super) fn with_own_system(&self, messages: Vec<Message>) -> Vec<Message> {
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
    /// The exchange as messages. A reply with calls has this content, and one without calls always
    /// has some.
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

/// The reply at the end of the conversation; an error if the observations cannot follow it.
fn reply_before<'a>(conversation: &'a [Message], observations: &[Message]) -> Result<&'a Message> {
    let spoken = |message: &&Message| message.role == "assistant";
    if let Some(at) = observations.iter().position(|message| spoken(&message)) {
        let found = format!("message {at} of the role `assistant`");
        let expected = "messages of other roles: the model's messages are sampled";
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
            "the model's reply, of the role `assistant`, as the last message",
        )
    })
}

fn is_system(message: &Message) -> bool {
    matches!(message.role.as_str(), "system" | "developer")
}

/// The reply with a sentinel at the end of its content and of its last call's arguments. A call
/// without content remains so, because templates distinguish the two cases.
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
