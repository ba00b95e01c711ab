//! How a chain of errors becomes text: once, at the edge.

use std::any::Any;
use std::error::Error;
use std::fmt;

/// Writes an error with its causes: `{}` on one line (`storing batch: opening segment: permission denied`), `{:#}` on several,
/// each cause after `caused by:`.
///
/// The messages themselves never contain their cause, so nothing is said twice.
#[derive(Clone, Copy, Debug)]
pub struct Chain<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut next = self.0.source();
        while let Some(cause) = next {
            let between = if f.alternate() { "\n  caused by: " } else { ": " };
            write!(f, "{between}{cause}")?;
            next = cause.source();
        }
        Ok(())
    }
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&'static str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::Chain;

    #[test]
    fn chain_names_each_cause_once() {
        let error = anyhow::anyhow!("permission denied")
            .context("opening segment")
            .context("storing batch");
        assert_eq!(
            Chain(&*error).to_string(),
            "storing batch: opening segment: permission denied"
        );
        let lines = format!("{:#}", Chain(&*error));
        assert_eq!(
            lines,
            "storing batch\n  caused by: opening segment\n  caused by: permission denied"
        );
    }
}
