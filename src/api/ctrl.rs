//! The family `nlctrl`, by which clients learn the numbers of the other families (`linux/genetlink.h`).

use crate::errno::Errno;
use crate::nl::{u16_at, u32_at, DecodeError, Header, Table, Writer};
use crate::{ipvs, ripvs};

/// Number of this family.
pub const CTRL_ID: u16 = 16;
/// Number of the family IPVS.
pub const IPVS_ID: u16 = 33;
/// Number of the family RIPVS.
pub const RIPVS_ID: u16 = 34;

const NEWFAMILY: u8 = 1;
const GETFAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
const FAMILY_VERSION: u16 = 3;
const HDRSIZE: u16 = 4;
const MAXATTR: u16 = 5;

/// What the reply to a question for a family says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Family {
    /// Its number: the type of its messages.
    pub id: u16,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: u32,
    /// Highest attribute of its commands.
    pub max_attr: u32,
}

impl Family {
    /// All families that there are.
    pub fn all() -> [Family; 3] {
        let family = |id, name: &str, version, max_attr| Family {
            id,
            name: name.to_owned(),
            version,
            max_attr,
        };
        [
            family(CTRL_ID, "nlctrl", 2, 10),
            family(IPVS_ID, ipvs::NAME, ipvs::VERSION.into(), 6),
            family(RIPVS_ID, ripvs::NAME, ripvs::VERSION.into(), 32),
        ]
    }

    /// The command's number in replies.
    pub(crate) fn command(&self) -> u8 {
        NEWFAMILY
    }

    pub(crate) fn encode(&self, w: &mut Writer) {
        w.string(FAMILY_NAME, &self.name);
        w.u16(FAMILY_ID, self.id);
        w.u32(FAMILY_VERSION, self.version);
        w.u32(HDRSIZE, 0);
        w.u32(MAXATTR, self.max_attr);
    }

    pub(crate) fn decode(command: u8, attrs: &[u8]) -> Result<Family, DecodeError> {
        if command != NEWFAMILY {
            return Err(DecodeError::Unknown(command.into()));
        }
        let table = Table::<6>::new(attrs);
        let need = |kind, what| table.get(kind).ok_or(DecodeError::Missing(what));
        let number =
            |kind, what| need(kind, what).and_then(|v| u32_at(v, 0).ok_or(DecodeError::Truncated));
        Ok(Family {
            id: u16_at(need(FAMILY_ID, "family id")?, 0).ok_or(DecodeError::Truncated)?,
            name: text(need(FAMILY_NAME, "family name")?),
            version: number(FAMILY_VERSION, "family version")?,
            max_attr: number(MAXATTR, "highest attribute")?,
        })
    }
}

/// A question for families.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// That of this name.
    Name(String),
    /// That of this number.
    Id(u16),
    /// All of them; a dump.
    All,
}

impl Query {
    /// The families asked for.
    ///
    /// # Errors
    /// ENOENT where there is none such.
    pub fn answer(&self) -> Result<Vec<Family>, Errno> {
        let found: Vec<Family> = Family::all()
            .into_iter()
            .filter(|family| match self {
                Query::Name(name) => family.name == *name,
                Query::Id(id) => family.id == *id,
                Query::All => true,
            })
            .collect();
        if found.is_empty() {
            return Err(Errno::NOENT);
        }
        Ok(found)
    }

    pub(crate) fn command(&self) -> u8 {
        GETFAMILY
    }

    pub(crate) fn encode(&self, w: &mut Writer) {
        match self {
            Query::Name(name) => w.string(FAMILY_NAME, name),
            Query::Id(id) => w.u16(FAMILY_ID, *id),
            Query::All => {}
        }
    }

    pub(crate) fn decode(command: u8, header: &Header, attrs: &[u8]) -> Result<Query, Errno> {
        if command != GETFAMILY {
            return Err(Errno::OPNOTSUPP);
        }
        if header.is_dump() {
            return Ok(Query::All);
        }
        let table = Table::<3>::new(attrs);
        match (table.get(FAMILY_ID), table.get(FAMILY_NAME)) {
            (Some(id), _) => u16_at(id, 0).map(Query::Id).ok_or(Errno::INVAL),
            (None, Some(name)) => Ok(Query::Name(text(name))),
            (None, None) => Err(Errno::INVAL),
        }
    }
}

fn text(bytes: &[u8]) -> String {
    let bytes = bytes.split(|byte| *byte == 0).next().unwrap_or(bytes);
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_found_by_name_and_number() {
        let found = Query::Name("IPVS".into()).answer().unwrap();
        assert_eq!(found[0].id, IPVS_ID);
        let found = Query::Id(RIPVS_ID).answer().unwrap();
        assert_eq!(found[0].name, "RIPVS");
        assert_eq!(Query::Name("TASKSTATS".into()).answer(), Err(Errno::NOENT));
        assert_eq!(Query::All.answer().unwrap().len(), 3);
    }

    #[test]
    fn questions_and_answers_survive_the_wire() {
        for query in [Query::Name("IPVS".into()), Query::Id(33)] {
            let mut writer = Writer::new();
            query.encode(&mut writer);
            let found = Query::decode(GETFAMILY, &Header::default(), writer.as_bytes());
            assert_eq!(found, Ok(query));
        }
        for family in Family::all() {
            let mut writer = Writer::new();
            family.encode(&mut writer);
            assert_eq!(Family::decode(NEWFAMILY, writer.as_bytes()), Ok(family));
        }
    }

    #[test]
    fn a_question_for_nothing_is_invalid() {
        let found = Query::decode(GETFAMILY, &Header::default(), &[]);
        assert_eq!(found, Err(Errno::INVAL));
        let found = Query::decode(9, &Header::default(), &[]);
        assert_eq!(found, Err(Errno::OPNOTSUPP));
    }
}
