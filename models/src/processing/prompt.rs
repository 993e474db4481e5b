//! The prompt's text, as the model's origin makes it of the task and, for pi0.5, of the robot's state.

use crate::nets::config::PromptFormat;
use crate::processing::Loaded;

/// Bins of a state in the prompt.
const BINS: f64 = 256.0;

/// The text that becomes tokens after the begin of sequence. openpi's pi0 cleans the task, and encodes the newline by
/// itself (`PaligemmaTokenizer.tokenize`): there the tokenizer does both. The others: task and state as openpi's
/// `PaligemmaTokenizer.tokenize` and lerobot's `Pi05PrepareStateTokenizerProcessorStep` put them together, lerobot's
/// `Pi0NewLineProcessor`, open-pi-zero's `add_image_tokens_to_prompt`, and Galaxea's `PaliGemmaTokenizer` with what
/// `augment_instruction` gives it without a high-level task.
pub fn text<W>(loaded: &Loaded<W>, task: &str, state: &[f32]) -> String {
    match loaded.model.config.prompt {
        PromptFormat::Task => task.to_owned(),
        PromptFormat::Lerobot => lerobot(task),
        PromptFormat::OpenPiZero => format!("{task}\n"),
        PromptFormat::Galaxea => format!("Task: [Low]: {task}, "),
        PromptFormat::TaskAndState => {
            let mut state = state.to_vec();
            loaded.normalization.state.normalize(&mut state);
            let state: Vec<String> = state.iter().map(|v| bin(*v).to_string()).collect();
            format!("Task: {}, State: {};\nAction: ", clean(task), state.join(" "))
        }
    }
}

/// A task as lerobot's `Pi0NewLineProcessor` leaves it.
pub fn lerobot(task: &str) -> String {
    format!("{task}{}", if task.ends_with('\n') { "" } else { "\n" })
}

/// Without line breaks and underscores.
pub(crate) fn clean(task: &str) -> String {
    task.trim().replace(['_', '\n'], " ")
}

/// `np.digitize(v, np.linspace(-1, 1, 257)[:-1]) - 1`: −1 below the range, 255 above.
fn bin(v: f32) -> i32 {
    ((f64::from(v) + 1.0) * (BINS / 2.0)).floor().clamp(-1.0, BINS - 1.0) as i32
}

#[cfg(test)]
mod tests {
    #[test]
    fn bins_as_numpy_counts_them() {
        let cases = [(-1.001, -1), (-1.0, 0), (-0.9922, 0), (-0.992_187_5, 1), (0.0, 128), (0.9999, 255), (7.0, 255)];
        for (value, expected) in cases {
            assert_eq!(super::bin(value), expected, "{value}");
        }
    }
}
