//! Exports for a one-way gateway: gathered from the database in small readings, by request and by the schedule.

use std::path::PathBuf;
use std::time::Duration;

use boot_server_core::audit::{Anchor, Line};
use boot_server_core::usage::Period;
use protocol::Timestamp;
use tokio_util::sync::CancellationToken;

use super::{Engine, EngineError, EventFilter, now};
use crate::audit::export;
use crate::config::ExportSettings;
use crate::export::{Archive, Parts, Position, move_on, position, rotate};
use crate::http::metrics_text;
use crate::minisign::Signer;
use crate::store::audit::{self as rows, AuditFilter, Found};

/// Events read at once.
const BATCH: usize = 1_000;
/// Most events, and most entries of the audit, in one archive: a few hundred MiB. The next one goes on behind them.
const LINES_MAX: u64 = 1_000_000;

impl Engine {
    /// Where an export begins that is to have everything since a moment.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn export_position(&self, since: Timestamp) -> Result<Position, EngineError> {
        let mut before = None;
        let event = loop {
            let filter = EventFilter { before, limit: BATCH, ..EventFilter::default() };
            let page = self.events(filter).await?;
            if let Some(older) = page.iter().find(|event| event.at < since) {
                break older.id;
            }
            match page.last() {
                Some(last) if page.len() == BATCH => before = Some(last.id),
                _ => break 0,
            }
        };
        self.audit().flush().await;
        let find = move |db: &_| {
            let filter =
                AuditFilter { since: Some(since), after: Some(0), limit: 1, ..AuditFilter::default() };
            let (oldest, head) = (rows::anchor(db, "anchor")?, rows::anchor(db, "head")?);
            Ok(match rows::entries(db, &filter)?.first() {
                Some(Found::Link(link)) => link.entry.number.saturating_sub(1).max(oldest.number),
                Some(Found::Unreadable(_)) => oldest.number,
                None => head.number,
            })
        };
        Ok(Position { at: since, event, audit: self.store().read(find).await? })
    }

    /// Everything behind `from`, put together and signed. `name` keeps it apart from another one that is made meanwhile.
    ///
    /// # Errors
    /// Where the store or the disk fails.
    pub async fn export(&self, from: Position, name: &str) -> Result<Archive, EngineError> {
        let settings = self.settings();
        let mut parts = Parts::new(&settings.state_dir, name)?;
        let at = now();
        let event = self.export_events(&mut parts, from.event).await?;
        let audit = self.export_audit(&mut parts, from.audit).await?;
        parts.add("metrics.prom", metrics_text(self).await?.as_bytes())?;
        let usage = self.usage(None, Period { from: from.at, to: at }).await?;
        parts.add("usage.json", &serde_json::to_vec(&usage).unwrap_or_default())?;
        let (key, path) = (self.site_public_key(), settings.state_dir.join("signing.key"));
        let to = Position { at, event, audit };
        let made = tokio::task::spawn_blocking(move || {
            let signer = Signer::open(&path)?;
            parts.finish(from, to, &key, &signer)
        });
        Ok(made.await??)
    }

    async fn export_events(&self, parts: &mut Parts, after: i64) -> Result<i64, EngineError> {
        let (mut part, mut last, mut lines) = (parts.begin("events.ndjson")?, after, 0);
        loop {
            let filter = EventFilter { after: Some(last), limit: BATCH, ..EventFilter::default() };
            let page = self.events(filter).await?;
            for event in &page {
                part.line(event)?;
                last = event.id;
            }
            lines += page.len() as u64;
            if page.len() < BATCH || lines >= LINES_MAX {
                parts.end(part)?;
                return Ok(last);
            }
        }
    }

    /// A piece of the chain that can be checked by itself: between an anchor and a head, which is signed here and now.
    async fn export_audit(&self, parts: &mut Parts, after: u64) -> Result<u64, EngineError> {
        self.audit().flush().await;
        let begin = move |db: &_| {
            let oldest = rows::anchor(db, "anchor")?;
            let after = after.max(oldest.number);
            let (first, head) = export::beginning(db, Some(after))?;
            // An entry that cannot be read is no beginning: then from the oldest, so that the gap tells.
            let (first, head) = match first {
                Some(first) => (Some(first), head),
                None => export::beginning(db, None)?,
            };
            Ok((first, head, anchor_at(db, after.saturating_add(LINES_MAX))?))
        };
        let (first, head, cut) = self.store().read(begin).await?;
        let mut part = parts.begin("audit.ndjson")?;
        let end = cut.filter(|cut| cut.number < head.number).unwrap_or(head);
        let Some((lines, mut after)) = first else {
            parts.end(part)?;
            return Ok(after);
        };
        for line in lines {
            match line {
                Line::Head(_) => {
                    part.line(&Line::Head(end))?;
                    if end.number > 0 {
                        part.line(&Line::Checkpoint(self.site_checkpoint(end)))?;
                    }
                }
                Line::Checkpoint(it) if it.head.number > end.number => {}
                other => part.line(&other)?,
            }
        }
        let last = i64::try_from(end.number).unwrap_or(i64::MAX);
        while let Some((lines, next)) = self.store().read(move |db| export::lines(db, after, last)).await? {
            lines.iter().try_for_each(|line| part.line(line))?;
            after = next;
        }
        parts.end(part)?;
        Ok(end.number)
    }

    /// Exports by the schedule, until `stop`.
    pub async fn run_exports(&self, settings: ExportSettings, stop: CancellationToken) {
        loop {
            let wait = match self.export_by_schedule(&settings).await {
                Ok(Some(path)) => {
                    tracing::info!(path = %path.display(), "exported");
                    settings.every
                }
                // A server that was started again looks when it is due.
                Ok(None) => settings.every.min(Duration::from_mins(1)),
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(
                        error,
                        "nothing was exported; it is tried again, and nothing is left out"
                    );
                    settings.every.min(Duration::from_mins(1))
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    async fn export_by_schedule(&self, settings: &ExportSettings) -> Result<Option<PathBuf>, EngineError> {
        let state_dir = self.settings().state_dir.clone();
        let dir = state_dir.clone();
        let known = tokio::task::spawn_blocking(move || position(&dir)).await??;
        let from = match known {
            Some(from) => from,
            // The first one has what there is of the last day.
            None => self.export_position(Timestamp(now().0.saturating_sub(86_400_000))).await?,
        };
        let due = from.at.0.saturating_add(u64::try_from(settings.every.as_millis()).unwrap_or(u64::MAX));
        if known.is_some() && now().0 < due {
            return Ok(None);
        }
        let archive = self.export(from, "schedule").await?;
        let (to, keep, directory) = (archive.to, settings.keep, settings.directory.clone());
        let put = tokio::task::spawn_blocking(move || {
            let path = archive.put(&directory)?;
            move_on(&state_dir, to)?;
            rotate(&directory, keep)?;
            Ok::<_, crate::export::ExportError>(path)
        });
        Ok(Some(put.await??))
    }
}

/// The entry of this number, as what stands behind it has it.
fn anchor_at(
    db: &crate::store::db::Connection,
    number: u64,
) -> Result<Option<Anchor>, crate::store::StoreError> {
    let filter = AuditFilter {
        after: number.checked_sub(1),
        before: Some(number.saturating_add(1)),
        limit: 1,
        ..AuditFilter::default()
    };
    let found = rows::entries(db, &filter)?.into_iter().find_map(|found| match found {
        Found::Link(link) if link.entry.number == number => Some(link.anchor()),
        _ => None,
    });
    Ok(found)
}
