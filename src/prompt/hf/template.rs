//! Chat templates.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use minijinja::{Environment, Value};

use super::Variables;
use super::environment::{Raised, environment, freeze_clock, without_generation_tags};
use super::folder::{self, Folder};
use super::methods::strip;
use super::values::values;
use crate::types::Message;
use crate::{Error, Result};

const DEFAULT: &str = "default";
/// The name of the template for conversations with tools in a list of templates.
const TOOL_USE: &str = "tool_use";
/// The marker at the end of a message that is to be continued. Its trailing space shows if the
/// template trims.
const CONTINUED: &str = "CONTINUED_FROM_HERE ";

/// The options of [`ChatTemplate::render`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RenderOptions {
    /// Ends with the start of an assistant's message, for the model to reply. Default: false.
    pub add_generation_prompt: bool,
    /// Ends within the last message, for the model to continue it. Default: false.
    pub continue_final_message: bool,
    /// The variables of the template, which override the special tokens. Default: none.
    pub variables: Variables,
}

impl RenderOptions {
    /// Returns the options for a reply of the model: only
    /// [`add_generation_prompt`](Self::add_generation_prompt) is set.
    pub fn generation() -> Self {
        Self {
            add_generation_prompt: true,
            ..Self::default()
        }
    }
}

/// The Jinja chat template of an instruction-tuned model, rendered by `minijinja`.
///
/// It renders the same text as `transformers`, with trimmed blocks, no escaping, `break` and
/// `continue`, the methods of Python's strings, dicts and lists, `raise_exception`, `strftime_now`,
/// Python's `tojson`, and the model's special tokens as variables (`bos_token`, `eos_token` ...).
/// `tools` and `documents` are `none` unless they are set.
///
/// String formatting with `%` (`"%s" % x`) is not supported; the filter `format` is.
///
/// ```
/// use std::collections::BTreeMap;
/// use rlvr::prompt::Message;
/// use rlvr::prompt::hf::{ChatTemplate, RenderOptions};
///
/// let template = ChatTemplate::new(
///     "{% for message in messages %}\
///      [{{ message.role }}] {{ message.content }}{{ eos_token }}\n\
///      {% endfor %}\
///      {% if add_generation_prompt %}[assistant] {% endif %}",
///     &BTreeMap::from([("eos_token".to_owned(), "</s>".to_owned())]),
/// )?;
/// let text = template.render(&[Message::user("1+1=")], &RenderOptions::generation())?;
/// assert_eq!(text, "[user] 1+1=</s>\n[assistant] ");
/// # Ok::<(), rlvr::Error>(())
/// ```
///
/// A field of a message that is not set is undefined in the template. Reasoning is available as
/// `reasoning_content` and `thinking`. A tool call is
/// `{"id", "type": "function", "function": {"name", "arguments"}}` with the arguments as an object;
/// an empty id is undefined.
///
/// If a template writes the current date, set the date as a variable that it reads, to get the same
/// text on another day.
#[derive(Clone, Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    special_tokens: BTreeMap<String, String>,
    has_tool_use: bool,
}

impl ChatTemplate {
    /// Compiles the template `source`, with the special tokens by their variable names.
    ///
    /// # Errors
    /// Returns [`Error::Config`] with the line if `source` is not a valid template.
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

    /// Reads the template of the folder `path`.
    ///
    /// It is `chat_template.jinja` or else the `chat_template` of `tokenizer_config.json`. If this
    /// is a list of named templates, `default` is used, or `tool_use` if the variable `tools` is
    /// set.
    ///
    /// # Errors
    /// Returns [`Error::Io`] if a file cannot be read, [`Error::Data`] if a file is invalid, and
    /// [`Error::Config`] if there is no template.
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
                "the file chat_template.jinja, or a `chat_template` in tokenizer_config.json, as in the folders of chat \
                 models",
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

    /// Renders a conversation.
    ///
    /// # Errors
    /// Returns [`Error::Config`] if there are no messages, if the arguments of a call are not a
    /// JSON object, if both `add_generation_prompt` and `continue_final_message` are set, if the
    /// last message cannot be continued, if the template fails (with the line), or if the template
    /// calls `raise_exception` (with its message).
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
                "false with `add_generation_prompt`: the model either continues the last message or starts a new one",
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
                "false: the template changes the text of the last message",
            ));
        };
        let kept = &text[..at];
        let trims = !text[at..].starts_with(CONTINUED);
        Ok(strip(kept, None, false, trims).to_owned())
    }

    /// Makes `strftime_now` always write the time of this call.
    pub(super) fn with_frozen_clock(mut self) -> Self {
        freeze_clock(&mut self.environment);
        self
    }

    /// Renders messages that have been converted to values.
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

/// The error and its causes, on one line.
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
