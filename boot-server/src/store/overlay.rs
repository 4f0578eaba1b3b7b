//! The rows of networks, subnets, ports, security groups, routers, floating addresses and mirrors: one shape for all of them.

use std::fmt;
use std::str::FromStr;

use boot_server_core::network::{Floating, Mirror, Network, Port, Router, SecurityGroup, Subnet};
use protocol::{
    FloatingId, MacAddr, MirrorId, NetworkId, PortId, ProjectId, RouterId, SecurityGroupId, ServerId,
    SubnetId, Timestamp,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::StoreError;
use super::db::{self, Connection, params};
use super::queries::{all, from_word, json, moment, ms, parsed};

/// Whose the things of the site itself are.
pub const SITE: ProjectId = ProjectId(Uuid::nil());

/// A thing with what is kept beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row<T: Thing> {
    /// Names it for ever.
    pub id: T::Id,
    /// Whose; [`SITE`] for the site's own.
    pub project: ProjectId,
    /// Names it for people; empty where it has no name.
    pub name: String,
    /// Grows by one with every change.
    pub version: i64,
    /// When it was made.
    pub created: Timestamp,
    /// When it was last changed.
    pub changed: Timestamp,
    /// What it is.
    pub value: T,
}

/// Something that is kept by its id.
pub trait Thing: Serialize + DeserializeOwned + fmt::Debug + Clone + Send + Sync + 'static {
    /// Its id.
    type Id: Copy + Ord + fmt::Debug + fmt::Display + FromStr + DeserializeOwned + Send + Sync + 'static;
    /// Its table.
    const TABLE: &'static str;
    /// Whose names are unique, as [`db::taken`] wants it.
    const KEY: &'static str;
    /// In words, for people.
    const WORD: &'static str;

    /// Whose machine is plugged in.
    fn server(&self) -> Option<ServerId> {
        None
    }
}

/// A network, and who may see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Net {
    /// What it is.
    pub network: Network,
    /// Of the site: projects may use it.
    pub shared: bool,
}

/// A port, and whose machine is plugged in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plug {
    /// What it is.
    pub port: Port,
    /// The server.
    pub server: Option<ServerId>,
    /// It was made with the server, and goes with it.
    pub follows: bool,
    /// The address on Ethernet that somebody asked for: while a machine is plugged in the port has that of its NIC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own: Option<MacAddr>,
    /// Which of the machine's NICs it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nic: Option<u16>,
}

macro_rules! things {
    ($($thing:ty, $id:ty, $table:literal, $word:literal;)*) => {$(
        impl Thing for $thing {
            type Id = $id;
            const TABLE: &'static str = $table;
            const KEY: &'static str = concat!($table, ".project, ", $table, ".name");
            const WORD: &'static str = $word;
        }
    )*};
}

things! {
    Net, NetworkId, "networks", "network";
    Subnet, SubnetId, "subnets", "subnet";
    SecurityGroup, SecurityGroupId, "security_groups", "security group";
    Router, RouterId, "routers", "router";
    Floating, FloatingId, "floating", "floating address";
    Mirror, MirrorId, "mirrors", "mirror";
}

impl Thing for Plug {
    type Id = PortId;
    const TABLE: &'static str = "ports";
    const KEY: &'static str = "ports.project, ports.name";
    const WORD: &'static str = "port";

    fn server(&self) -> Option<ServerId> {
        self.server
    }
}

/// Adds a row.
///
/// # Errors
/// [`StoreError::NameTaken`], or what the database says.
pub fn insert<T: Thing>(db: &Connection, row: &Row<T>) -> Result<(), StoreError> {
    let Row { id, project, name, version, created, changed, value } = row;
    let (id, project, body) = (id.to_string(), project.to_string(), json(T::TABLE, value)?);
    let done = if T::TABLE == Plug::TABLE {
        db.execute(
            "INSERT INTO ports (id, project, name, version, created, changed, server, body) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            params![
                id,
                project,
                name,
                *version,
                ms(*created),
                ms(*changed),
                value.server().map(|s| s.to_string()),
                body
            ],
        )
    } else {
        let sql = format!(
            "INSERT INTO {} (id, project, name, version, created, changed, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            T::TABLE
        );
        db.execute(&sql, params![id, project, name, *version, ms(*created), ms(*changed), body])
    };
    done.map(|_| ()).map_err(|cause| refused::<T>(cause, name))
}

/// Replaces the row that has the version before this one's.
///
/// # Errors
/// [`StoreError::NameTaken`], [`StoreError::Conflict`], or what the database says.
pub fn update<T: Thing>(db: &Connection, row: &Row<T>) -> Result<(), StoreError> {
    let Row { id, name, version, changed, value, .. } = row;
    let (id, body, before) = (id.to_string(), json(T::TABLE, value)?, version - 1);
    let done = if T::TABLE == Plug::TABLE {
        let server = value.server().map(|server| server.to_string());
        db.execute(
            "UPDATE ports SET name = ?1, version = ?2, changed = ?3, body = ?4, server = ?5 WHERE id = ?6 AND version = ?7",
            params![name, *version, ms(*changed), body, server, id, before],
        )
    } else {
        let sql = format!(
            "UPDATE {} SET name = ?1, version = ?2, changed = ?3, body = ?4 WHERE id = ?5 AND version = ?6",
            T::TABLE
        );
        db.execute(&sql, params![name, *version, ms(*changed), body, id, before])
    };
    let changed = done.map_err(|cause| refused::<T>(cause, name))?;
    if changed == 1 { Ok(()) } else { Err(StoreError::Conflict) }
}

/// Removes a row.
///
/// # Errors
/// [`StoreError::Conflict`] where it is gone already, or what the database says.
pub fn remove<T: Thing>(db: &Connection, id: T::Id) -> Result<(), StoreError> {
    let gone = db
        .execute(&format!("DELETE FROM {} WHERE id = ?1", T::TABLE), params![id.to_string()])
        .map_err(StoreError::sql("remove a part of a network"))?;
    if gone == 1 { Ok(()) } else { Err(StoreError::Conflict) }
}

/// All rows, oldest first.
///
/// # Errors
/// What the database says, or a damaged row.
pub fn rows<T: Thing>(db: &Connection) -> Result<Vec<Row<T>>, StoreError> {
    let sql =
        format!("SELECT id, project, name, version, created, changed, body FROM {} ORDER BY id", T::TABLE);
    let found = all(db, "list parts of networks", &sql, params![], |row| {
        let texts: [String; 4] = [row.get(0)?, row.get(1)?, row.get(2)?, row.get(6)?];
        Ok((texts, row.get::<_, i64>(3)?, row.get::<_, i64>(4)?, row.get::<_, i64>(5)?))
    })?;
    let row = |([id, project, name, body], version, created, changed): ([String; 4], i64, i64, i64)| {
        Ok(Row {
            id: from_word(T::TABLE, &id)?,
            project: from_word(T::TABLE, &project)?,
            name,
            version,
            created: moment(created),
            changed: moment(changed),
            value: parsed(T::TABLE, &body)?,
        })
    };
    found.into_iter().map(row).collect()
}

/// How many networks, routers and floating addresses a project has: all else hangs on them, but for security groups.
///
/// # Errors
/// What the database says.
pub fn count(db: &Connection, project: ProjectId) -> Result<usize, StoreError> {
    let sql = "SELECT (SELECT COUNT(*) FROM networks WHERE project = ?1) \
               + (SELECT COUNT(*) FROM routers WHERE project = ?1) \
               + (SELECT COUNT(*) FROM floating WHERE project = ?1)";
    let count = db.query_row(sql, params![project.to_string()], |row| row.get::<_, i64>(0));
    Ok(usize::try_from(count.map_err(StoreError::sql("count networks"))?).unwrap_or(0))
}

fn refused<T: Thing>(cause: db::Error, name: &str) -> StoreError {
    if db::taken(&cause, T::KEY) {
        StoreError::NameTaken(name.to_owned())
    } else {
        StoreError::sql("store a part of a network")(cause)
    }
}
