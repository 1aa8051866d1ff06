//! Talk to an open-weight model: `cargo run --release --features hf --example chat -- --model DIR`.
//! See `--help`.

#[path = "common/allocator.rs"]
mod allocator;
#[path = "common/backend.rs"]
mod backend;

use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use backend::Backend;
use burn::module::Module;
use clap::Parser;
use rlvr::policy::hf::{LoadOptions, load, load_adapters};
use rlvr::prompt::hf::ChatTokenizer;
use rlvr::prompt::{Message, TextStream, Tokenizer};
use rlvr::rollout::{
    GenerationConfig, GenerationRequest, SamplingConfig, generate_streaming, read_sampling,
};
use rlvr::{Error, Result};

/// Talk to a model in a Hugging Face folder.
///
/// A line is a turn; the conversation continues until the input ends (Ctrl-D) or `/quit`; `/new`
/// begins another. Ctrl-C cuts an answer off. With --prompt one question is answered and nothing is
/// asked.
#[derive(Parser, Debug)]
#[command(name = "chat", version)]
struct Args {
    /// The model's folder
    #[arg(long)]
    model: PathBuf,
    /// The folder of the tokenizer and the chat template, for a model without one, such as `policy`
    /// in a checkpoint; default: the model's
    #[arg(long, value_name = "DIR")]
    tokenizer: Option<PathBuf>,
    /// Adapters to put on it, in PEFT's format
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
    /// Answer this and leave
    #[arg(long)]
    prompt: Option<String>,
    /// The system prompt; the chat template may have a default
    #[arg(long)]
    system: Option<String>,
    /// Where tensors live: one of the backends compiled in (features of the same names)
    #[arg(long, value_enum, default_value_t = Backend::default())]
    device: Backend,
    /// The most tokens in an answer
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..))]
    max_new_tokens: u32,
    /// 0 for the most probable token, always; default: what the model's generation_config.json says
    #[arg(long)]
    temperature: Option<f64>,
    /// Keep the most probable tokens whose probabilities reach this
    #[arg(long)]
    top_p: Option<f64>,
    /// Keep so many of the most probable tokens
    #[arg(long)]
    top_k: Option<usize>,
    /// All randomness derives from it
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

fn main() -> ExitCode {
    allocator::keep_memory();
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let device = args.device.device(0);
    let started = Instant::now();
    let mut model = load(&args.model, &LoadOptions::f32(), &device)?;
    if let Some(adapter) = &args.adapter {
        (model, _) = load_adapters(model, adapter)?;
        model = model.merge_lora();
    }
    let companions = args.tokenizer.as_ref().unwrap_or(&args.model);
    let tokenizer = ChatTokenizer::from_folder(companions)?;
    let mut sampling = read_sampling(companions)?;
    if let Some(temperature) = args.temperature {
        sampling.temperature = temperature;
    }
    sampling = SamplingConfig {
        top_p: args.top_p.or(sampling.top_p),
        top_k: args.top_k.or(sampling.top_k),
        ..sampling
    };
    let stop_tokens = tokenizer.stop_tokens();
    let config =
        GenerationConfig::new(args.max_new_tokens as usize, stop_tokens).with_sampling(sampling);
    config.validate()?;
    eprintln!(
        "{} parameters read in {:.1} s",
        model.num_params(),
        started.elapsed().as_secs_f64()
    );

    let cut = Arc::new(AtomicBool::new(false));
    let raised = cut.clone();
    let system: Vec<Message> = args.system.iter().map(Message::system).collect();
    let mut turns = system.clone();
    let speak = |turns: &mut Vec<Message>, text: &str| -> Result<()> {
        turns.push(Message::user(text));
        let prompt = tokenizer.encode_conversation(turns, None)?;
        let address = [args.seed, turns.len() as u64];
        let request = GenerationRequest::new(prompt, 1, address);
        let mut stream = TextStream::new(&tokenizer);
        let (mut answer, mut broken) = (String::new(), None);
        let started = Instant::now();
        cut.store(false, Ordering::Relaxed);
        let mut count = 0;
        generate_streaming(&model, &[request], &config, |event| {
            count += 1;
            match stream.push(event.token) {
                Ok(piece) => say(&mut answer, &piece.unwrap_or_default()),
                Err(error) => broken = Some(error),
            }
            broken.is_none() && !cut.load(Ordering::Relaxed)
        })?;
        if let Some(error) = broken {
            return Err(error);
        }
        say(&mut answer, &stream.finish()?);
        println!();
        let seconds = started.elapsed().as_secs_f64();
        eprintln!("[{count} tokens, {:.1} a second]", count as f64 / seconds);
        turns.push(Message::assistant(answer));
        Ok(())
    };

    if let Some(prompt) = &args.prompt {
        return speak(&mut turns, prompt);
    }
    // Without a handler Ctrl-C ends the program, which is what it should do while nothing is said.
    let _ = ctrlc::set_handler(move || {
        if raised.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    });
    let stdin = std::io::stdin();
    let prompts = stdin.is_terminal();
    let mut lines = stdin.lock().lines();
    loop {
        if prompts {
            eprint!("> ");
        }
        let line = match lines.next() {
            Some(line) => line.map_err(|e| Error::io("standard input", e))?,
            None => return Ok(()),
        };
        match line.trim() {
            "" => {}
            "/quit" => return Ok(()),
            "/new" => turns = system.clone(),
            text => speak(&mut turns, text)?,
        }
    }
}

/// Writes a piece of the answer at once.
fn say(answer: &mut String, piece: &str) {
    print!("{piece}");
    let _ = std::io::stdout().flush();
    answer.push_str(piece);
}
