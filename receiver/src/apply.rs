//! One disk, from the stream's open line to its final name.

use xfer_hole_image::{Phase, Tally, Target};
use xfer_hole_link::{Messages, Signals};
use xfer_hole_proto::{Dialect, Fingerprint, Item, Open, Sums};

use crate::error::Error;
use crate::input::Input;
use crate::river::River;

/// What the user accepts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) dialect: Dialect,
    pub(crate) require_hash: bool,
    /// In octets.
    pub(crate) max_size: Option<u64>,
    /// Parts of what is there may be kept.
    pub(crate) allow_base: bool,
}

impl Rules {
    pub(crate) fn check_size(&self, size: u64) -> Result<(), Error> {
        match self.max_size {
            Some(max) if size > max => Err(Error::TooLarge { size, max }),
            _ => Ok(()),
        }
    }
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) fingerprint: Option<Fingerprint>,
    /// What the user should know of the target.
    pub(crate) notes: Vec<String>,
}

/// Receives one disk. The target is touched once the open line, and BASE if there is one, have been found good.
pub(crate) fn apply(
    input: &mut Input,
    target: Target,
    rules: &Rules,
    tally: &Tally,
    signals: &Signals,
    messages: Messages,
) -> Result<Done, Error> {
    let open = match rules.dialect {
        Dialect::Classic => None,
        Dialect::V1 => Some(open_line(input, rules)?),
    };
    let size = open.map(|open| open.size);
    size.into_iter().for_each(|size| tally.set_size(size));
    let first = input.next()?;
    let (base, first) = match first {
        Some(Item::Base(base)) => (Some(base.size), None),
        first => (None, first),
    };
    if base.is_some() && !rules.allow_base {
        return Err(Error::NoBase);
    }
    let sink = target.open(size, base)?;
    signals.set_remains(Some(sink.remains()));
    tally.set_phase(Phase::Receiving);
    let interval = open.and_then(|open| open.sums).map(Sums::interval);
    let ended = River::new(sink.as_ref(), rules, tally, signals, messages).run(input, first, interval);
    let remains = sink.remains();
    let done = ended.and_then(|()| {
        let fingerprint = input.decoder().fingerprint();
        let at = input.decoder().at();
        tally.set_size(at);
        tally.set_phase(Phase::Syncing);
        let notes = sink.finish(size.unwrap_or(at))?;
        signals.set_remains(Some("the whole disk was received".to_owned()));
        Ok(Done { fingerprint, notes })
    });
    done.map_err(|error| match error {
        Error::Image(error) if error.is_published() => error.into(),
        error => Error::Begun { error: error.into(), remains },
    })
}

fn open_line(input: &mut Input, rules: &Rules) -> Result<Open, Error> {
    let Some(Item::Open(open)) = input.next()? else { return Err(input.cut().into()) };
    rules.check_size(open.size)?;
    if rules.require_hash && open.sums.is_none() {
        return Err(Error::NoHash);
    }
    Ok(open)
}
