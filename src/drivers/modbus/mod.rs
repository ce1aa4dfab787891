//! `modbus`: meters and sensors on an RS-485 bus, Modbus RTU. Eastron meters by their model, any other by a list of
//! registers in the configuration.
//!
//! Registers to readings, without a wire; the bus is spoken by `run`, through tokio-modbus.

pub mod frame;
mod maps;
mod replay;

use std::{collections::BTreeSet, time::Duration};

use self::maps::{MODELS, Model};
use super::{
    Common, Device, Driver, Poller, Request, Said, Table, Wire,
    point::{self, DECIMALS, KINDS, LABEL, NAME, OFFSET, RANGE, SCALE, interval, range},
    words,
};
use crate::{
    config::{Block, Both, Field, Presence},
    port::serial::{Framing, Line},
    reading::{Kind, Point, PointId, Quality, Why},
};

/// The driver.
pub const DRIVER: Driver = Driver {
    name: "modbus",
    title: "meters and sensors on an RS-485 bus (Modbus RTU): Eastron SDM, or any list of registers",
    source: "Modbus Application Protocol V1.1b3; Modbus over Serial Line V1.02; Eastron SDM register lists",
    fields: FIELDS,
    read,
    replay: replay::replay,
};

const PORT: Field = Field {
    name: "port",
    expects: Both("a path such as \"/dev/serial/by-id/usb-...\"", "un chemin comme \"/dev/serial/by-id/usb-...\""),
    presence: Presence::Required,
    doc: "The RS-485 adapter. Several devices may name the same one; they then share its speed and framing.",
};
const SPEED: Field = Field {
    name: "speed",
    expects: Both("bits per second such as 9600", "des bits par seconde, comme 9600"),
    presence: Presence::Default("9600"),
    doc: "As set on the device. Eastron SDM120 leave the factory at 2400, the others at 9600.",
};
const FRAMING: Field = Field {
    name: "framing",
    expects: Both("\"8N1\", \"8E1\", \"8O1\" or \"8N2\"", "\"8N1\", \"8E1\", \"8O1\" ou \"8N2\""),
    presence: Presence::Default("\"8N1\""),
    doc: "As set on the device. The documents of one family may disagree: if nothing answers, try \"8E1\".",
};
const UNIT: Field = Field {
    name: "unit",
    expects: Both("a whole number from 1 to 254", "un nombre entier de 1 à 254"),
    presence: Presence::Default("1"),
    doc: "The device's address on the bus. 254 is what SenseAir sensors answer to, whatever their own.",
};
const EVERY: Field = Field {
    name: "every",
    expects: Both("a duration such as \"10 s\"", "une durée comme \"10 s\""),
    presence: Presence::Default("\"10 s\""),
    doc: "Pause between two rounds of reading.",
};
const TIMEOUT: Field = Field {
    name: "timeout",
    expects: Both("a duration such as \"1 s\"", "une durée comme \"1 s\""),
    presence: Presence::Default("\"1 s\""),
    doc: "How long to wait for an answer.",
};
const MODEL: Field = Field {
    name: "model",
    expects: Both(
        "\"SDM120\", \"SDM230\", \"SDM630\", \"SDM72\" or \"SDM72-V2\"",
        "\"SDM120\", \"SDM230\", \"SDM630\", \"SDM72\" ou \"SDM72-V2\"",
    ),
    presence: Presence::Optional,
    doc: "A meter whose registers are known here. Without it, list the registers.",
};
const REGISTERS: Field = Field {
    name: "register",
    expects: Both("one or more [[device.register]] blocks", "un ou plusieurs blocs [[device.register]]"),
    presence: Presence::Optional,
    doc: "Registers to read, besides those of the model.",
};
const FIELDS: &[Field] = &[PORT, SPEED, FRAMING, UNIT, EVERY, TIMEOUT, MODEL, REGISTERS];

const TABLE: Field = Field {
    name: "table",
    expects: Both("\"input\" or \"holding\"", "\"input\" ou \"holding\""),
    presence: Presence::Default("\"input\""),
    doc: "Input registers (function 04, often written 3xxxx) or holding registers (function 03, 4xxxx).",
};
const ADDRESS: Field = Field {
    name: "address",
    expects: Both("a whole number from 0 to 65535", "un nombre entier de 0 à 65535"),
    presence: Presence::Required,
    doc: "The address as it goes over the wire, from 0: for a register written 30001 it is 0.",
};
const TYPE: Field = Field {
    name: "type",
    expects: Both(
        "\"u16\", \"i16\", \"u32\", \"i32\", \"u64\", \"i64\", \"f32\" or \"f64\"",
        "\"u16\", \"i16\", \"u32\", \"i32\", \"u64\", \"i64\", \"f32\" ou \"f64\"",
    ),
    presence: Presence::Default("\"u16\""),
    doc: "What the registers hold.",
};
const WORD_ORDER: Field = Field {
    name: "word_order",
    expects: Both("\"big\" or \"little\"", "\"big\" ou \"little\""),
    presence: Presence::Default("\"big\""),
    doc: "Which of several registers comes first: the high one (big) or the low one (little).",
};
const MISSING: Field = Field {
    name: "missing",
    expects: Both("a whole number such as 0x7FFF", "un nombre entier comme 0x7FFF"),
    presence: Presence::Optional,
    doc: "The raw value by which the device says that it has none.",
};
const KIND: Field = Field {
    name: "kind",
    expects: Both("\"gauge\", \"counter\" or \"state\"", "\"gauge\", \"counter\" ou \"state\""),
    presence: Presence::Default("\"gauge\""),
    doc: "A level, an index that only grows, or a state.",
};
const INTERVAL: Field = Field {
    name: "interval",
    expects: Both("a duration such as \"10 min\"", "une durée comme \"10 min\""),
    presence: Presence::Optional,
    doc: "How often a reading is expected. The device's `every` stands for it.",
};

/// Keys of a `[[device.register]]` block.
pub const REGISTER: &[Field] = &[
    NAME,
    LABEL,
    TABLE,
    ADDRESS,
    TYPE,
    WORD_ORDER,
    SCALE,
    OFFSET,
    MISSING,
    DECIMALS,
    point::UNIT,
    KIND,
    RANGE,
    INTERVAL,
];

const FRAMINGS: &[(&str, Framing)] =
    &[("8N1", Framing::EightN1), ("8E1", Framing::EightE1), ("8O1", Framing::EightO1), ("8N2", Framing::EightN2)];
const TABLES: &[(&str, Table)] = &[("input", Table::Input), ("holding", Table::Holding)];
const WORD_ORDERS: &[(&str, WordOrder)] = &[("big", WordOrder::Big), ("little", WordOrder::Little)];
const TYPES: &[(&str, Type)] = &[
    ("u16", Type::U16),
    ("i16", Type::I16),
    ("u32", Type::U32),
    ("i32", Type::I32),
    ("u64", Type::U64),
    ("i64", Type::I64),
    ("f32", Type::F32),
    ("f64", Type::F64),
];

/// What registers hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F32,
    F64,
}

/// Which register of several comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WordOrder {
    Big,
    Little,
}

impl Type {
    /// How many registers it takes.
    fn width(self) -> u16 {
        match self {
            Self::U16 | Self::I16 => 1,
            Self::U32 | Self::I32 | Self::F32 => 2,
            Self::U64 | Self::I64 | Self::F64 => 4,
        }
    }

    fn read(self, bits: u64) -> f64 {
        match self {
            Self::U16 | Self::U32 | Self::U64 => bits as f64,
            Self::I16 => f64::from(bits as u16 as i16),
            Self::I32 => f64::from(bits as u32 as i32),
            Self::I64 => bits as i64 as f64,
            Self::F32 => f64::from(f32::from_bits(bits as u32)),
            Self::F64 => f64::from_bits(bits),
        }
    }
}

/// One value among the registers of a device.
#[derive(Debug, Clone)]
struct Register {
    point: PointId,
    table: Table,
    address: u16,
    holds: Type,
    word_order: WordOrder,
    scale: f64,
    offset: f64,
    missing: Option<u64>,
}

impl Register {
    /// The address after its last register; one more than any address has.
    fn end(&self) -> u32 {
        u32::from(self.address) + u32::from(self.holds.width())
    }

    fn bits(&self, words: &[u16]) -> u64 {
        let join = |bits: u64, word: &u16| bits << 16 | u64::from(*word);
        match self.word_order {
            WordOrder::Big => words.iter().fold(0, join),
            WordOrder::Little => words.iter().rev().fold(0, join),
        }
    }

    fn say(&self, words: &[u16]) -> Said {
        let bits = self.bits(words);
        let value = self.holds.read(bits) * self.scale + self.offset;
        let point = self.point.clone();
        if self.missing == Some(bits) || !value.is_finite() {
            return Said::Value { point, value: None, quality: Quality::Bad(Why::NotANumber) };
        }
        Said::Value { point, value: Some(value), quality: Quality::Good }
    }
}

const MOST_REGISTERS: usize = 256;
/// Registers in one read; Eastron meters give 80 at most, and others rarely more.
const MOST_IN_A_READ: u16 = 80;
/// Registers nobody asked for that are read along to save a request.
const WIDEST_HOLE: u32 = 20;

fn read(block: &Block<'_>, common: Common) -> Option<Device> {
    let path = block.get(&PORT);
    let speed = block.within(&SPEED, 300_u32, 921_600);
    let framing = block.choice(&FRAMING, FRAMINGS);
    let unit = block.within(&UNIT, 1_u8, 254);
    let every = block.duration_within(&EVERY, Duration::from_secs(1), Duration::from_secs(86_400));
    let timeout = block.duration_within(&TIMEOUT, Duration::from_millis(50), Duration::from_secs(10));
    let model = if block.has(MODEL.name) { block.choice(&MODEL, MODELS).map(Some) } else { Some(None) };
    let listed = listed(block, &common, every.unwrap_or(Duration::from_secs(10)));
    let line = Line { path: path?, speed: speed?, framing: framing? };
    let (unit, every, timeout, model) = (unit?, every?, timeout?, model?);
    let mut all = match model {
        Some(model) => of_model(block, &common, model, every)?,
        None => Vec::new(),
    };
    all.extend(listed?);
    if all.is_empty() || all.len() > MOST_REGISTERS {
        block.fault(
            REGISTERS.name,
            words!(
                "a `model`, or one to 256 [[device.register]] blocks, were expected",
                "attendu : un `model`, ou de 1 à 256 blocs [[device.register]]"
            ),
        );
        return None;
    }
    let most = model.map_or(MOST_IN_A_READ, |model| model.most_in_a_read);
    let (points, registers): (Vec<Point>, Vec<Register>) = all.into_iter().unzip();
    let poller = Box::new(Registers::new(registers, most));
    let wire = Wire::Bus { line, unit, every, timeout, poller };
    Some(Device { name: common.name, label: common.label, driver: DRIVER.name, points, wire })
}

fn of_model(block: &Block<'_>, common: &Common, model: &Model, every: Duration) -> Option<Vec<(Point, Register)>> {
    let entry = |quantity: &maps::Quantity| {
        let id = common.name.join(quantity.channel)?;
        let point = Point {
            id: id.clone(),
            label: format!("{}, {}", common.label, quantity.title),
            unit: quantity.unit.to_owned(),
            kind: quantity.kind,
            decimals: quantity.decimals,
            interval: Some(every),
            range: Some(quantity.low..=quantity.high),
            sharing: common.sharing,
        };
        let register = Register {
            point: id,
            table: Table::Input,
            address: quantity.address,
            holds: Type::F32,
            word_order: WordOrder::Big,
            scale: 1.0,
            offset: 0.0,
            missing: None,
        };
        Ok((point, register))
    };
    let entries: Result<_, crate::reading::NotAPointId> = model.quantities().map(entry).collect();
    entries.map_err(|wrong| block.fault("name", wrong)).ok()
}

/// The `[[device.register]]` blocks; `None` when one of them has a fault.
fn listed(block: &Block<'_>, common: &Common, every: Duration) -> Option<Vec<(Point, Register)>> {
    let blocks = block.blocks(REGISTERS.name);
    // Every block is read, so that every fault is told.
    let read: Vec<_> = blocks.iter().map(|block| register(block, common, every)).collect();
    read.into_iter().collect()
}

fn register(block: &Block<'_>, common: &Common, every: Duration) -> Option<(Point, Register)> {
    block.only(&[REGISTER]);
    let name: Option<String> = block.get(&NAME);
    let id = name.as_ref().map(|name| common.name.join(name));
    let id = id.and_then(|id| id.map_err(|wrong| block.fault(NAME.name, wrong)).ok());
    let table = block.choice(&TABLE, TABLES);
    let address: Option<u16> = block.get(&ADDRESS);
    let holds = block.choice(&TYPE, TYPES);
    let word_order = block.choice(&WORD_ORDER, WORD_ORDERS);
    let (scale, offset) = (block.get(&SCALE), block.get(&OFFSET));
    let missing = if block.has(MISSING.name) { block.get(&MISSING).map(Some) } else { Some(None) };
    let decimals = block.within(&DECIMALS, 0_u8, 9);
    let unit = block.get(&point::UNIT);
    let kind: Option<Kind> = block.choice(&KIND, KINDS);
    let range = range(block, &RANGE);
    let interval = interval(block, &INTERVAL);
    let label: String = block.get(&LABEL).or(name).unwrap_or_default();
    let (address, holds) = (address?, holds?);
    if u32::from(address) + u32::from(holds.width()) > 0x1_0000 {
        block.fault(
            ADDRESS.name,
            words!(
                "`address` is {address}, too high for what the type takes",
                "`address` vaut {address}, trop haut pour la place que prend le type"
            ),
        );
        return None;
    }
    let id = id?;
    let point = Point {
        id: id.clone(),
        label: format!("{}, {label}", common.label),
        unit: unit?,
        kind: kind?,
        decimals: decimals?,
        interval: Some(interval?.unwrap_or(every)),
        range: range?,
        sharing: common.sharing,
    };
    let register = Register {
        point: id,
        table: table?,
        address,
        holds,
        word_order: word_order?,
        scale: scale?,
        offset: offset?,
        missing: missing?,
    };
    Some((point, register))
}

/// The registers of a device and the reads that fetch them.
#[derive(Debug)]
struct Registers {
    registers: Vec<Register>,
    requests: Vec<Request>,
}

impl Registers {
    fn new(mut registers: Vec<Register>, most: u16) -> Self {
        registers.sort_by_key(|register| (register.table == Table::Holding, register.address));
        let requests = group(&registers, most, WIDEST_HOLE);
        Self { registers, requests }
    }

    fn in_request(&self, request: Request) -> impl Iterator<Item = (&Register, usize)> {
        let end = u32::from(request.address) + u32::from(request.count);
        self.registers
            .iter()
            .filter(move |register| register.table == request.table && register.end() <= end)
            .filter_map(move |register| Some((register, register.address.checked_sub(request.address)?.into())))
    }
}

/// Few reads for many registers. `registers` come sorted.
fn group(registers: &[Register], most: u16, widest_hole: u32) -> Vec<Request> {
    let mut requests: Vec<Request> = Vec::new();
    for register in registers {
        let joined = requests.last_mut().and_then(|last| {
            let last_end = u32::from(last.address) + u32::from(last.count);
            let count = u16::try_from(register.end().max(last_end) - u32::from(last.address)).ok()?;
            let near = last.table == register.table && u32::from(register.address) <= last_end + widest_hole;
            (near && count <= most).then(|| last.count = count)
        });
        if joined.is_none() {
            let count = register.holds.width();
            requests.push(Request { table: register.table, address: register.address, count });
        }
    }
    requests
}

impl Poller for Registers {
    fn requests(&self) -> &[Request] {
        &self.requests
    }

    fn answer(&self, request: Request, registers: &[u16], said: &mut Vec<Said>) {
        for (register, at) in self.in_request(request) {
            if let Some(words) = registers.get(at..at + usize::from(register.holds.width())) {
                said.push(register.say(words));
            }
        }
    }

    /// Some meters refuse a read that touches a register they do not have, or a long one: ask for the wanted ones
    /// alone, then for half as many.
    fn refused(&mut self, request: Request) -> bool {
        let wanted: Vec<Register> = self.in_request(request).map(|(register, _)| register.clone()).collect();
        let touching = group(&wanted, request.count, 0);
        let smaller = if touching.len() > 1 { touching } else { group(&wanted, request.count / 2, 0) };
        let distinct: BTreeSet<_> = smaller.iter().map(|request| (request.address, request.count)).collect();
        if distinct.len() < 2 {
            return false;
        }
        self.requests.retain(|known| *known != request);
        self.requests.extend(smaller);
        true
    }

    fn unavailable(&self, request: Request, said: &mut Vec<Said>) {
        said.extend(self.in_request(request).map(|(register, _)| Said::Value {
            point: register.point.clone(),
            value: None,
            quality: Quality::Bad(Why::DeviceFault),
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Source;

    /// A device from the keys that matter here.
    pub(super) fn device(keys: &str) -> Device {
        let text = format!("name = \"m\"\ndriver = \"modbus\"\nport = \"/dev/a\"\n{keys}");
        let source = Source::new("f.toml", text);
        let table = source.parse();
        let block = Block::new(&source, "device", table.span(), table.get_ref());
        let device = super::super::read_device(&block);
        assert_eq!(source.faults(), []);
        device.expect("a device")
    }

    fn poller(device: Device) -> Box<dyn Poller> {
        match device.wire {
            Wire::Bus { poller, .. } => poller,
            _ => unreachable!("modbus is a bus"),
        }
    }

    #[test]
    fn a_meter_is_read_in_few_requests_that_it_can_serve() {
        for (model, most, requests) in
            [("SDM120", 80, 3), ("SDM230", 80, 3), ("SDM630", 80, 2), ("SDM72", 60, 3), ("SDM72-V2", 60, 4)]
        {
            let poller = poller(device(&format!("model = \"{model}\"")));
            assert!(poller.requests().len() <= requests, "{model}: {:?}", poller.requests());
            assert!(poller.requests().iter().all(|request| request.count <= most), "{model}");
        }
    }

    #[test]
    fn registers_that_touch_share_a_read_and_tables_do_not() {
        let device = device(
            "[[register]]\nname = \"a\"\naddress = 10\ntype = \"f32\"\n[[register]]\nname = \"b\"\naddress = 12\n\
             [[register]]\nname = \"c\"\naddress = 12\ntable = \"holding\"\n[[register]]\nname = \"d\"\naddress = 65535\n",
        );
        let asked: Vec<_> = poller(device).requests().iter().map(|r| (r.table, r.address, r.count)).collect();
        let expected = [(Table::Input, 10, 3), (Table::Input, 65_535, 1), (Table::Holding, 12, 1)];
        assert_eq!(asked, expected);
    }

    #[test]
    fn a_refused_read_is_cut_until_each_register_is_alone_and_then_no_more() {
        let keys = "[[register]]\nname = \"a\"\naddress = 0\n[[register]]\nname = \"b\"\naddress = 1\n\
                    [[register]]\nname = \"c\"\naddress = 9\n";
        let mut poller = poller(device(keys));
        let asked = |poller: &dyn Poller| poller.requests().iter().map(|r| (r.address, r.count)).collect::<Vec<_>>();
        assert_eq!(asked(poller.as_ref()), [(0, 10)]);
        let first = poller.requests()[0];
        assert!(poller.refused(first));
        assert_eq!(asked(poller.as_ref()), [(0, 2), (9, 1)]);
        let first = poller.requests()[0];
        assert!(poller.refused(first));
        assert_eq!(asked(poller.as_ref()), [(9, 1), (0, 1), (1, 1)]);
        let first = poller.requests()[0];
        assert!(!poller.refused(first));
    }

    #[test]
    fn every_type_and_word_order_is_read() {
        let one = |keys: &str, words: &[u16]| {
            let poller = poller(device(&format!("[[register]]\nname = \"a\"\naddress = 5\n{keys}")));
            let mut said = Vec::new();
            poller.answer(poller.requests()[0], words, &mut said);
            match said.as_slice() {
                [Said::Value { value, .. }] => *value,
                other => unreachable!("{other:?}"),
            }
        };
        assert_eq!(one("type = \"u16\"", &[0xff33]), Some(65_331.0));
        assert_eq!(one("type = \"i16\"\nscale = 0.1", &[0xff33]).map(|v| (v * 10.0).round()), Some(-205.0));
        assert_eq!(one("type = \"u32\"", &[1, 2]), Some(65_538.0));
        assert_eq!(one("type = \"u32\"\nword_order = \"little\"", &[2, 1]), Some(65_538.0));
        assert_eq!(one("type = \"i32\"", &[0xffff, 0xfffe]), Some(-2.0));
        assert_eq!(one("type = \"u64\"", &[0, 0, 1, 0]), Some(65_536.0));
        assert_eq!(one("type = \"i64\"", &[0xffff, 0xffff, 0xffff, 0xffff]), Some(-1.0));
        assert_eq!(one("type = \"f32\"", &[0x42c8, 0]), Some(100.0));
        assert_eq!(one("type = \"f64\"\nword_order = \"little\"", &[0, 0, 0, 0x3ff0]), Some(1.0));
        assert_eq!(one("offset = -50.0\nscale = 2", &[100]), Some(150.0));
        assert_eq!(one("missing = 0x7FFF", &[0x7fff]), None);
        assert_eq!(one("type = \"f32\"", &[0x7fc0, 0]), None, "NaN");
        assert_eq!(one("type = \"f32\"", &[0xff80, 0]), None, "minus infinity");
    }

    #[test]
    fn an_answer_shorter_than_asked_says_nothing_of_what_is_missing() {
        let poller = poller(device("model = \"SDM120\""));
        let mut said = Vec::new();
        poller.answer(poller.requests()[0], &[0x4366, 0x3334], &mut said);
        assert_eq!(said.len(), 1);
    }

    #[test]
    fn a_device_without_registers_is_a_fault() {
        let source = Source::new("f.toml", "name = \"m\"\ndriver = \"modbus\"\nport = \"/dev/a\"");
        let table = source.parse();
        let block = Block::new(&source, "device", table.span(), table.get_ref());
        assert!(super::super::read_device(&block).is_none());
        assert!(source.faults()[0].message.english.contains("a `model`, or"), "{:?}", source.faults());
    }
}
