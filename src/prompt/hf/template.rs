//! The chat template of a Hugging Face folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use minijinja::{Environment, Value};

use super::environment::{Raised, environment, freeze_clock, without_generation_tags};
use super::folder::{self, Folder};
use super::methods::strip;
use super::values::values;
use super::{Message, Variables};
use crate::{Error, Result};

const DEFAULT: &str = "default";
/// The template, of those that come as a list, which is meant for conversations with tools.
const TOOL_USE: &str = "tool_use";
/// Stands where a message that is to be continued ends. The space at its end tells whether the template trims.
const CONTINUED: &str = "CONTINUED_FROM_HERE ";

/// How a conversation is rendered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RenderOptions {
    /// Ends with the beginning of an assistant's turn, so that the model speaks next. Default: false.
    pub add_generation_prompt: bool,
    /// Ends within the last message, so that the model continues it. Default: false.
    pub continue_final_message: bool,
    /// What else the template reads; wins over the special tokens. Default: none.
    pub variables: Variables,
}

impl RenderOptions {
    /// With the beginning of an assistant's turn at the end.
    pub fn generation() -> Self {
        Self {
            add_generation_prompt: true,
            ..Self::default()
        }
    }
}

/// A chat template in Jinja, as instruction-tuned models bring one, by `minijinja`.
///
/// It renders what `transformers` renders: blocks trimmed on both sides, nothing escaped, `break` and `continue`, the methods of
/// Python's strings, dicts and lists, `raise_exception`, `strftime_now`, `tojson` as Python writes it, and the model's special
/// tokens as variables (`bos_token`, `eos_token` ...). `tools` and `documents` are `none` unless given.
///
/// Not supported: `%` to format a string (`"%s" % x`; the filter `format` is).
///
/// ```
/// use std::collections::BTreeMap;
/// use rlvr::prompt::hf::{ChatTemplate, Message, RenderOptions};
///
/// let template = ChatTemplate::new(
///     "{% for message in messages %}[{{ message.role }}] {{ message.content }}{{ eos_token }}\n{% endfor %}\
///      {% if add_generation_prompt %}[assistant] {% endif %}",
///     &BTreeMap::from([("eos_token".to_owned(), "</s>".to_owned())]),
/// )?;
/// let text = template.render(&[Message::user("1+1=")], &RenderOptions::generation())?;
/// assert_eq!(text, "[user] 1+1=</s>\n[assistant] ");
/// # Ok::<(), rlvr::Error>(())
/// ```
///
/// A message's field that is not set is undefined. Its reasoning is both `reasoning_content` and `thinking`, and a call of a tool is
/// `{"id", "type": "function", "function": {"name", "arguments"}}` with the arguments as an object; an empty id is undefined.
///
/// A template that writes the date of the day renders another text tomorrow: give it the date as the variable it reads.
#[derive(Clone, Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    special_tokens: BTreeMap<String, String>,
    has_tool_use: bool,
}

impl ChatTemplate {
    /// The template `source`, with the special tokens by the names it knows them by.
    ///
    /// # Errors
    /// [`Error::Config`] if it is not a template, with the line.
    pub fn new(source: &str, special_tokens: &BTreeMap<String, String>) -> Result<Self> {
        Self::compile(
            &[(DEFAULT, source)],
            special_tokens.clone(),
            |line, reason| {
                Error::config(
                    "chat_template",
                    format!("line {line}: {reason}"),
                    "a Jinja template",
                )
            },
        )
    }

    /// The template of the folder `path`: `chat_template.jinja`, else the `chat_template` of `tokenizer_config.json`, a template
    /// or a list of named ones: `default` is used, and `tool_use` where the variable `tools` is given.
    ///
    /// # Errors
    /// [`Error::Io`] if a file cannot be read, [`Error::Data`] if one is not what it should be, [`Error::Config`] if there is no
    /// template.
    pub fn from_folder(path: impl AsRef<Path>) -> Result<Self> {
        let folder = Folder::read(path.as_ref())?;
        let special_tokens = folder.named_tokens();
        let refused = |path: PathBuf| {
            move |line, reason| Error::Data {
                path: path.clone(),
                line,
                reason: format!("the chat template: {reason}"),
            }
        };
        let file = folder.path.join("chat_template.jinja");
        if let Some(source) = folder::text(&file)? {
            return Self::compile(&[(DEFAULT, &source)], special_tokens, refused(file));
        }
        let listed = folder.tokenizer_config.get("chat_template");
        let templates: Vec<(&str, &str)> = match listed {
            Some(serde_json::Value::String(source)) => vec![(DEFAULT, source)],
            Some(serde_json::Value::Array(list)) => list
                .iter()
                .filter_map(|entry| {
                    Some((
                        entry.get("name")?.as_str()?,
                        entry.get("template")?.as_str()?,
                    ))
                })
                .filter(|(name, _)| [DEFAULT, TOOL_USE].contains(name))
                .collect(),
            _ => Vec::new(),
        };
        if !templates.iter().any(|(name, _)| *name == DEFAULT) {
            let found = match listed {
                Some(serde_json::Value::Array(_)) => "a list without one named `default`",
                _ => "none",
            };
            return Err(Error::config(
                format!("{}: chat template", folder.path.display()),
                found,
                "the file chat_template.jinja, or a `chat_template` in tokenizer_config.json, as models that are tuned \
                 to converse have",
            ));
        }
        let file = folder.path.join("tokenizer_config.json");
        Self::compile(&templates, special_tokens, refused(file))
    }

    fn compile(
        templates: &[(&str, &str)],
        special_tokens: BTreeMap<String, String>,
        refused: impl Fn(usize, String) -> Error,
    ) -> Result<Self> {
        let refuse = |error: minijinja::Error| refused(error.line().unwrap_or(1), reason(&error));
        let mut environment = environment().map_err(&refuse)?;
        for (name, source) in templates {
            environment
                .add_template_owned((*name).to_owned(), without_generation_tags(source))
                .map_err(&refuse)?;
        }
        Ok(Self {
            environment,
            special_tokens,
            has_tool_use: templates.iter().any(|(name, _)| *name == TOOL_USE),
        })
    }

    /// The text of a conversation.
    ///
    /// # Errors
    /// [`Error::Config`] if there are no messages, if a call's arguments are no JSON object, if both options exclude each other, if
    /// the template fails (with its line), or if it refuses the conversation by `raise_exception`: then with what it says.
    pub fn render(&self, messages: &[Message], options: &RenderOptions) -> Result<String> {
        let run = |messages: &[Message]| {
            let generation = options.add_generation_prompt;
            self.render_values(values(messages)?, &options.variables, generation)
        };
        let Some(last) = messages.last().filter(|_| options.continue_final_message) else {
            return run(messages);
        };
        if options.add_generation_prompt {
            return Err(Error::config(
                "continue_final_message",
                "true",
                "false beside `add_generation_prompt`: the model either continues the last turn or begins its own",
            ));
        }
        let mut tagged = messages.to_vec();
        if let Some(tagged) = tagged.last_mut() {
            tagged.content.push_str(CONTINUED);
        }
        let text = run(&tagged)?;
        let tag = CONTINUED.trim_end();
        let said = strip(&last.content, None, true, true);
        let at = text.rfind(tag).filter(|_| text.contains(said));
        let Some(at) = at else {
            return Err(Error::config(
                "continue_final_message",
                "true",
                "false: the template does not write the last message as it is",
            ));
        };
        let kept = &text[..at];
        let trims = !text[at..].starts_with(CONTINUED);
        Ok(strip(kept, None, false, trims).to_owned())
    }

    /// This template with its clock stopped: `strftime_now` writes the present time whenever it is called.
    pub(super) fn with_frozen_clock(mut self) -> Self {
        freeze_clock(&mut self.environment);
        self
    }

    /// The text of a conversation, its messages as values.
    pub(super) fn render_values(
        &self,
        messages: Vec<Value>,
        variables: &Variables,
        add_generation_prompt: bool,
    ) -> Result<String> {
        if messages.is_empty() {
            return Err(Error::config("messages", "none", "at least one message"));
        }
        let mut context: BTreeMap<&str, Value> = BTreeMap::new();
        context.extend([("tools", Value::from(())), ("documents", Value::from(()))]);
        let special = self.special_tokens.iter();
        context.extend(special.map(|(name, token)| (name.as_str(), Value::from(token.as_str()))));
        context.extend(variables.iter().map(|(name, value)| (name, value.clone())));
        let generation = Value::from(add_generation_prompt);
        context.insert("add_generation_prompt", generation);
        context.insert("messages", Value::from(messages));

        let with_tools = self.has_tool_use && variables.has("tools");
        let name = if with_tools { TOOL_USE } else { DEFAULT };
        let template = self.environment.get_template(name);
        let rendered = template.and_then(|template| template.render(Value::from_pairs(context)));
        rendered.map_err(|error| {
            let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
            while let Some(error) = cause {
                if let Some(Raised(message)) = error.downcast_ref::<Raised>() {
                    return Error::config(
                        "messages",
                        message,
                        "a conversation that the model's chat template accepts",
                    );
                }
                cause = error.source();
            }
            let line = error.line().unwrap_or(1);
            let failed = format!("line {line}: {}", reason(&error));
            Error::config(
                "chat_template",
                failed,
                "a template that can render these messages",
            )
        })
    }
}

/// What went wrong and why, on one line.
fn reason(error: &minijinja::Error) -> String {
    let what = error.kind().to_string();
    let mut reason = match error.detail() {
        Some(detail) => format!("{what}: {detail}"),
        None => what,
    };
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        reason = format!("{reason}: {error}");
        cause = error.source();
    }
    reason
}
