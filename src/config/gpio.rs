//! The `[gpio]` block: which pins the gateway uses.

use std::path::PathBuf;

use super::{Block, Both, Field, Presence, words};
use crate::port::gpio::Choice;

/// The keys of `[gpio]`.
pub const FIELDS: &[Field] = &[BACKEND, CHIP, CONTROL];

const BACKEND: Field = Field {
    name: "backend",
    expects: Both("\"auto\", \"rppal\", \"cdev\" or \"simulated\"", "\"auto\", \"rppal\", \"cdev\" ou \"simulated\""),
    presence: Presence::Default("\"auto\""),
    doc: "What drives the pins. `auto`: rppal on a Raspberry Pi it knows, else the kernel's GPIO character device. \
          `simulated`: no hardware, for a trial at a desk.",
};
const CHIP: Field = Field {
    name: "chip",
    expects: Both("a chip's label, such as \"9030000.pl061\"", "le nom d'une puce, comme \"9030000.pl061\""),
    presence: Presence::Optional,
    doc: "With `cdev`, on a board that is no Raspberry Pi: the label of the GPIO chip, as `gpiodetect` shows it in brackets. \
          `pin` is then a line of that chip.",
};
const CONTROL: Field = Field {
    name: "control",
    expects: Both("a path", "un chemin"),
    presence: Presence::Optional,
    doc: "With `simulated`: a FIFO to be created, through which a shell drives inputs (`echo \"17 pulse 5\" > control`). \
          What outputs do is written to the same name with `.outputs` added.",
};

/// Reads the block; without one, `auto`.
pub fn read(block: Option<&Block<'_>>) -> Choice {
    let Some(block) = block else { return Choice::Auto };
    block.only(&[FIELDS]);
    let control: Option<PathBuf> = block.get(&CONTROL);
    let chip: Option<String> = block.get(&CHIP);
    let simulated = Choice::Simulated { control: control.clone() };
    let cdev = Choice::Cdev { chip: chip.clone() };
    let words = [("auto", &Choice::Auto), ("rppal", &Choice::Rppal), ("cdev", &cdev), ("simulated", &simulated)];
    let choice = block.choice(&BACKEND, &words).cloned().unwrap_or_default();
    if control.is_some() && choice != simulated {
        block.fault(
            CONTROL.name,
            words!(
                "`control` has a meaning only with backend = \"simulated\"",
                "`control` n'a de sens qu'avec backend = \"simulated\""
            ),
        );
    }
    if chip.is_some() && choice != cdev {
        block.fault(
            CHIP.name,
            words!(
                "`chip` has a meaning only with backend = \"cdev\"",
                "`chip` n'a de sens qu'avec backend = \"cdev\""
            ),
        );
    }
    choice
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Source;

    fn choice(text: &str) -> (Choice, usize) {
        let source = Source::new("f.toml", text);
        let table = source.parse();
        let choice = read(Some(&Block::new(&source, "gpio", table.span(), table.get_ref())));
        (choice, source.faults().len())
    }

    #[test]
    fn the_backend_is_chosen_by_its_word_and_auto_without_one() {
        assert_eq!(read(None), Choice::Auto);
        assert_eq!(choice(""), (Choice::Auto, 0));
        assert_eq!(choice("backend = \"cdev\""), (Choice::Cdev { chip: None }, 0));
        let chip = Some("9030000.pl061".to_owned());
        assert_eq!(choice("backend = \"cdev\"\nchip = \"9030000.pl061\""), (Choice::Cdev { chip }, 0));
        assert_eq!(choice("chip = \"9030000.pl061\"").1, 1);
        let control = Some(PathBuf::from("/run/pins"));
        assert_eq!(choice("backend = \"simulated\"\ncontrol = \"/run/pins\""), (Choice::Simulated { control }, 0));
        assert_eq!(choice("backend = \"gpio\"\ncontrol = \"/run/pins\"").1, 2);
    }
}
