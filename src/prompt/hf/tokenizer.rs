//! Hugging Face tokenizers.

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;
use std::path::Path;

use tokenizers::{
    AddedToken, AddedVocabulary, Decoder, Model, NormalizedString, OffsetReferential, OffsetType,
    PreTokenizer, Token, normalizer,
};

use super::folder::{self, Folder, NAMED_TOKENS};
use super::marks::Marked;
use crate::prompt::Tokenizer;
use crate::{Error, Result};

/// The number of characters that an error shows on each side of the one it names.
const SHOWN: usize = 20;

/// The tokenizer of a Hugging Face folder, using the `tokenizers` crate.
///
/// It is read from `tokenizer.json`, and its padding and stop tokens from the configs in the same
/// folder. Settings for truncation and padding are ignored.
///
/// - [`encode`](Tokenizer::encode) treats all text as ordinary text: a special token in it, such as
///   `<|im_end|>`, is encoded as ordinary tokens. Added tokens that are not special, such as
///   `<think>` in many models, are matched. No beginning-of-text or end-of-text token is added.
///   [`encode_with_specials`](Self::encode_with_specials) matches special tokens too.
/// - [`decode`](Tokenizer::decode) omits padding and stop tokens and writes all other tokens,
///   including special ones. An id below the vocabulary size without a token (the embedding may
///   have more rows than there are tokens) is omitted.
/// - SentencePiece tokenizers do not distinguish a text from the same text after a space: `encode`
///   adds a space before the first word and `decode` removes it, so the round trip holds only for
///   text without a leading space. Tokenizers that normalize (Unicode forms, lower case) decode to
///   the normalized text.
///
/// ```no_run
/// use rlvr::prompt::Tokenizer;
/// use rlvr::prompt::hf::HfTokenizer;
///
/// let tokenizer = HfTokenizer::from_folder("SmolLM2-135M-Instruct")?;
/// let ids = tokenizer.encode("37 + 48 = 85")?;
/// assert_eq!(tokenizer.decode(&ids)?, "37 + 48 = 85");
/// # Ok::<(), rlvr::Error>(())
/// ```
#[derive(Clone)]
pub struct HfTokenizer {
    inner: tokenizers::Tokenizer,
    /// The added tokens, without matching of special ones.
    ordinary: AddedVocabulary,
    /// The ids of all special tokens.
    special_ids: HashSet<u32>,
    vocab_size: usize,
    stop: Vec<u32>,
    pad: u32,
}

impl HfTokenizer {
    /// Reads the tokenizer of the folder `path` from `tokenizer.json`, and from
    /// `tokenizer_config.json`, `generation_config.json` and `config.json` if they exist.
    ///
    /// The stop tokens are the `eos_token_id` of `generation_config.json`, or else of
    /// `config.json`, or else the `eos_token` of `tokenizer_config.json`. If there are several, the
    /// `eos_token` comes first, because it ends a message. The padding token is the `pad_token` of
    /// `tokenizer_config.json`, or else a `pad_token_id`, or else the first stop token.
    ///
    /// # Errors
    /// Returns [`Error::Io`] if a file cannot be read, [`Error::Data`] if a file is invalid, and
    /// [`Error::Config`] if there is no stop token or a field has an invalid value.
    pub fn from_folder(path: impl AsRef<Path>) -> Result<Self> {
        let folder = Folder::read(path.as_ref())?;
        let mut inner = read_tokenizer(&folder.path)?;
        let largest = inner.get_vocab(true).into_values().max().unwrap_or(0);
        let vocab_size = folder.vocab_size()?.unwrap_or(0).max(largest as usize + 1);

        let stop = stop_tokens(&folder, &inner)?;
        let named_pad = folder.named_token("pad_token");
        let pad = match named_pad.and_then(|token| inner.token_to_id(token)) {
            Some(id) => id,
            None => folder.pad_token_id()?.unwrap_or(stop[0]),
        };
        for &id in stop.iter().chain([&pad]) {
            if id as usize >= vocab_size {
                let expected = format!("ids below {vocab_size}, the size of the vocabulary");
                return Err(Error::config(
                    format!("{}: stop or padding token", folder.path.display()),
                    id,
                    expected,
                ));
            }
        }

        let named = NAMED_TOKENS
            .iter()
            .filter_map(|name| inner.token_to_id(folder.named_token(name)?));
        let special: Vec<u32> = named.chain(stop.iter().copied()).chain([pad]).collect();
        make_special(&mut inner, &special).map_err(|reason| Error::Data {
            path: folder.path.join("tokenizer.json"),
            line: 1,
            reason: reason.to_string(),
        })?;

        let added = inner.get_added_vocabulary();
        let mut ordinary = added.clone();
        ordinary.set_encode_special_tokens(true);
        let specials = added.get_added_tokens_decoder().iter();
        let specials = specials.filter(|(_, token)| token.special);
        Ok(Self {
            special_ids: specials.map(|(&id, _)| id).collect(),
            ordinary,
            vocab_size,
            stop,
            pad,
            inner,
        })
    }

    /// Returns the ids of `text`, matching special tokens in it. Use it for rendered templates, but
    /// not for untrusted text.
    ///
    /// # Errors
    /// The same as [`encode`](Tokenizer::encode).
    pub fn encode_with_specials(&self, text: &str) -> Result<Vec<u32>> {
        self.ids(self.inner.get_added_vocabulary(), text, &Marked::default())
    }

    /// The same as [`encode_with_specials`](Self::encode_with_specials), but encodes marked special
    /// tokens as ordinary text.
    pub(super) fn encode_marked(&self, marked: &Marked) -> Result<Vec<u32>> {
        self.ids(self.inner.get_added_vocabulary(), &marked.text, marked)
    }

    /// The texts of the stop tokens, the canonical one first.
    pub(super) fn stop_texts(&self) -> Vec<String> {
        let stop = self.stop.iter();
        stop.filter_map(|&id| self.inner.id_to_token(id)).collect()
    }

    /// The byte ranges of the special tokens in `text`.
    pub(super) fn specials_in(&self, text: &str) -> Vec<Range<usize>> {
        let added = self.inner.get_added_vocabulary();
        let pieces = added.extract_and_normalize(self.inner.get_normalizer(), text);
        let pieces = pieces.get_splits(OffsetReferential::Original, OffsetType::Byte);
        let special = |tokens: &Option<Vec<Token>>| {
            let mut tokens = tokens.iter().flatten();
            tokens.any(|token| self.special_ids.contains(&token.id))
        };
        pieces
            .into_iter()
            .filter(|(_, _, tokens)| special(tokens))
            .map(|(_, (start, end), _)| start..end)
            .collect()
    }

    /// Runs the pipeline of `tokenizers` (added tokens, normalizer, pre-tokenizer, model) without
    /// the last step, which would add special tokens, truncate and pad. The stand-ins of marked
    /// special tokens are replaced by these after the normalizer, when they can no longer be
    /// matched as added tokens.
    fn ids(&self, added: &AddedVocabulary, text: &str, marked: &Marked) -> Result<Vec<u32>> {
        let run = || -> tokenizers::Result<Vec<u32>> {
            let mut pieces = added.extract_and_normalize(self.inner.get_normalizer(), text);
            if marked.any() {
                pieces.normalize(|piece| {
                    piece.filter(|character| !marked.breaks.contains(&character));
                    for (stand_in, special) in &marked.stand_ins {
                        piece.replace(*stand_in, special)?;
                    }
                    Ok(())
                })?;
            }
            if let Some(pre_tokenizer) = self.inner.get_pre_tokenizer() {
                pre_tokenizer.pre_tokenize(&mut pieces)?;
            }
            pieces.tokenize(|piece| Ok(self.tokens(piece, text)?))?;
            let encoding = pieces.into_encoding(None, 0, OffsetType::None)?;
            Ok(encoding.get_ids().to_vec())
        };
        run().map_err(|error| match error.downcast::<Error>() {
            Ok(error) => *error,
            Err(error) => Error::config("text", format!("{:?}", shown(text, 0)), error.to_string()),
        })
    }

    /// The model's tokens of an ordinary piece of the text, none of which is special. A model with
    /// special tokens in its vocabulary, such as Unigram, would return one for its text; the piece
    /// is then cut in two and encoded again.
    fn tokens(&self, piece: &NormalizedString, text: &str) -> Result<Vec<Token>> {
        let mut tokens = Vec::new();
        let mut pending = vec![(0, piece.len())];
        while let Some((start, end)) = pending.pop() {
            let part = &piece.get()[start..end];
            let found =
                self.inner.get_model().tokenize(part).map_err(|error| {
                    Error::config("text", format!("{part:?}"), error.to_string())
                })?;
            let special = found
                .iter()
                .find(|token| self.special_ids.contains(&token.id));
            let Some(special) = special else {
                tokens.extend(found);
                continue;
            };
            let (from, to) = (start + special.offsets.0, start + special.offsets.1);
            let spelled = piece.get().get(from..to).unwrap_or_default();
            let first = spelled.chars().next().unwrap_or('\u{fffd}');
            let cut = from + first.len_utf8();
            if self.inner.token_to_id(spelled) != Some(special.id) || cut >= to {
                // The token for unknown characters.
                let within = piece.convert_offsets(normalizer::Range::Normalized(from..to));
                let position = piece.offsets_original().0 + within.map_or(0, |range| range.start);
                return Err(Error::UnknownCharacter {
                    character: first,
                    position,
                    text: shown(text, position),
                    vocabulary: self.vocab_size,
                });
            }
            pending.extend([(cut, end), (start, cut)]);
        }
        Ok(tokens)
    }
}

impl Tokenizer for HfTokenizer {
    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.ids(&self.ordinary, text, &Marked::default())
    }

    fn decode(&self, ids: &[u32]) -> Result<String> {
        let mut tokens = Vec::with_capacity(ids.len());
        for &id in ids {
            if id as usize >= self.vocab_size {
                tokens.push(char::REPLACEMENT_CHARACTER.to_string());
            } else if id != self.pad && !self.stop.contains(&id) {
                tokens.extend(self.inner.id_to_token(id));
            }
        }
        match self.inner.get_decoder() {
            // Some decoders panic for an empty list.
            _ if tokens.is_empty() => Ok(String::new()),
            None => Ok(tokens.join(" ")),
            Some(decoder) => decoder
                .decode(tokens)
                .map_err(|error| Error::config("ids", format!("{ids:?}"), error.to_string())),
        }
    }

    fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    fn stop_tokens(&self) -> Vec<u32> {
        self.stop.clone()
    }
}

impl fmt::Debug for HfTokenizer {
    /// Omits the vocabulary.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HfTokenizer")
            .field("vocab_size", &self.vocab_size)
            .field("stop", &self.stop)
            .field("pad", &self.pad)
            .finish_non_exhaustive()
    }
}

fn read_tokenizer(folder: &Path) -> Result<tokenizers::Tokenizer> {
    let path = folder.join("tokenizer.json");
    let text = folder::required(
        &path,
        "not found; expected a Hugging Face folder with the tokenizer in this file (transformers writes it with \
         `save_pretrained` of a fast tokenizer)",
    )?;
    // The parser of `tokenizers` panics for some invalid files.
    folder::check_json(&path, &text)?;
    let refused = |reason: tokenizers::Error| match reason.downcast_ref::<serde_json::Error>() {
        Some(error) => folder::broken(&path, error),
        None => Error::Data {
            path: path.clone(),
            line: 1,
            reason: reason.to_string(),
        },
    };
    tokenizers::Tokenizer::from_bytes(&text).map_err(refused)
}

/// The stop tokens, with the one that ends a message first.
fn stop_tokens(folder: &Folder, tokenizer: &tokenizers::Tokenizer) -> Result<Vec<u32>> {
    let named = folder.named_token("eos_token");
    let canonical = named.and_then(|token| tokenizer.token_to_id(token));
    let mut stop: Vec<u32> = Vec::new();
    for id in folder.eos_token_ids()? {
        if !stop.contains(&id) {
            stop.push(id);
        }
    }
    match canonical {
        Some(id) if stop.is_empty() => stop.push(id),
        Some(id) => stop.sort_by_key(|&other| other != id),
        None => {}
    }
    if !stop.is_empty() {
        return Ok(stop);
    }
    let found = match named {
        Some(token) => format!("the tokenizer config's {token:?}, which is not in the vocabulary"),
        None => "none".to_owned(),
    };
    Err(Error::config(
        format!("{}: stop token", folder.path.display()),
        found,
        "an `eos_token_id` in generation_config.json or config.json, or an `eos_token` of the vocabulary in \
         tokenizer_config.json",
    ))
}

/// Makes the tokens of these ids special, even if `tokenizer.json` says otherwise.
fn make_special(tokenizer: &mut tokenizers::Tokenizer, ids: &[u32]) -> tokenizers::Result<()> {
    let added = tokenizer.get_added_tokens_decoder();
    let mut specials = Vec::new();
    for id in ids {
        match added.get(id) {
            Some(token) if token.special => {}
            Some(token) => specials.push(AddedToken {
                special: true,
                ..token.clone()
            }),
            None => specials.extend(
                tokenizer
                    .id_to_token(*id)
                    .map(|token| AddedToken::from(token, true)),
            ),
        }
    }
    tokenizer.add_special_tokens(specials)?;
    Ok(())
}

/// The part of `text` around a byte offset.
fn shown(text: &str, position: usize) -> String {
    let position = (0..=position.min(text.len()))
        .rev()
        .find(|&at| text.is_char_boundary(at))
        .unwrap_or(0);
    let before: Vec<char> = text[..position].chars().rev().take(SHOWN).collect();
    let after = text[position..].chars().take(SHOWN + 1);
    before.into_iter().rev().chain(after).collect()
}
