//! The end of an attempt, with a result or without.

use std::collections::HashMap;

use clock::WallMs;
use messages::{
    job::{Reason, State},
    sql::{Level, Statement},
};
use serde_json::{Value, json};

use crate::{
    Error, Expired, Lease, Sql, Store, machine,
    retry::{self, Postponement},
    rows,
};

/// An attempt that has a result.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// Which attempt.
    pub lease: Lease,
    /// JSON text.
    pub result: String,
    /// JSON text that takes the place of the last report of progress.
    pub note: Option<String>,
}

/// An attempt that ended without a result.
#[derive(Clone, Debug, PartialEq)]
pub struct Ending {
    /// Which attempt.
    pub lease: Lease,
    /// Why.
    pub reason: Reason,
    /// In words; at most 4 KiB are kept.
    pub detail: String,
    /// When the next attempt may start, if there is one.
    pub retry_at: WallMs,
    /// Only if its lease was not renewed since it had this mark.
    pub mark: Option<i64>,
}

impl Ending {
    /// The end of an attempt whose worker was silent for the time of a lease.
    #[must_use]
    pub fn expired(seen: &Expired, now: WallMs) -> Self {
        Self {
            lease: seen.lease,
            reason: Reason::LeaseExpired,
            detail: format!("{} did not renew its lease", seen.runner),
            retry_at: now,
            mark: Some(seen.mark),
        }
    }
}

/// What became of a reported attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Which attempt.
    pub lease: Lease,
    /// The job's state after it, or nothing if the token was stale and the report was refused.
    pub state: Option<State>,
    /// Version of the row.
    pub version: u64,
}

const DETAIL_MAX: usize = 4096;

/// A postponement beyond what is free.
macro_rules! overdrawn {
    () => {
        "(?3 = 'postponed' AND (postponed >= ?13 OR coalesce(?6 - postponed_at >= ?14, 0)))"
    };
}

/// No further attempt.
macro_rules! given_up {
    () => {
        concat!(
            "(?9 OR (?7 AND kills + 1 >= ?11) OR (NOT (?8 AND NOT ",
            overdrawn!(),
            ") AND attempt >= max_attempts + ?12))"
        )
    };
}

/// When the next attempt may start. 30: [`retry::DOUBLINGS_MAX`].
macro_rules! next_at {
    () => {
        "CASE WHEN ?3 = 'postponed' THEN max(?5, ?6 + min(?15 << min(postponed, 30), ?16)) ELSE ?5 END"
    };
}

const _: () = assert!(retry::DOUBLINGS_MAX == 30);

const COMPLETE: &str = "UPDATE jobs SET state = 'completed', result = ?3, finished_at = ?4, lease_until = NULL, \
     progress = coalesce(?5, progress), version = version + 1 WHERE id = ?1 AND token = ?2 AND state = 'running'";

/// The rest of each row's parameters: 3 reason, 4 detail, 5 retry_at, 6 now, 7 counts as a kill, 8 gives the attempt
/// back, 9 is the last, 10 the mark of its lease, 11 the number of kills that is poison, 12 attempts that it is given more; of
/// postponements 13 the free number, 14 the free time, 15 the floor of the delay, 16 its cap.
const RECORD: &str = concat!(
    "INSERT INTO jobs_attempts (job_id, token, attempt, started_at, ended_at, reason, detail, runner)
    SELECT id, token, attempt, coalesce(started_at, ?6), ?6,
        CASE WHEN ?7 AND kills + 1 >= ?11 THEN 'poison' WHEN ",
    overdrawn!(),
    " THEN 'failed' ELSE ?3 END,
        CASE WHEN ",
    overdrawn!(),
    " THEN substr(?4, 1, 3000) || '; postponed ' || postponed || ' times before, so this attempt counts' ELSE ?4 END, runner
    FROM jobs WHERE id = ?1 AND token = ?2 AND state = 'running' AND (?10 IS NULL OR lease_until = ?10)
        AND ?5 IS NOT NULL AND ?8 IS NOT NULL AND ?9 IS NOT NULL AND ?12 IS NOT NULL AND ?15 + ?16 IS NOT NULL
    ON CONFLICT (job_id, token) DO NOTHING"
);

/// `machine::end`, said in SQL.
const END: &str = concat!(
    "UPDATE jobs SET
    state = CASE
        WHEN cancel_requested OR ?3 = 'cancelled' THEN 'cancelled'
        WHEN ",
    given_up!(),
    " THEN 'discarded'
        WHEN ",
    next_at!(),
    " <= ?6 THEN 'available'
        WHEN ?3 = 'postponed' AND NOT ",
    overdrawn!(),
    " THEN 'scheduled'
        ELSE 'retryable' END,
    finished_at = CASE WHEN cancel_requested OR ?3 = 'cancelled' OR ",
    given_up!(),
    " THEN ?6 END,
    attempt = attempt - (?8 AND NOT ",
    overdrawn!(),
    "), max_attempts = max_attempts + ?12, kills = kills + ?7, run_at = ",
    next_at!(),
    ", postponed = postponed + (?3 = 'postponed'),
    postponed_at = CASE WHEN ?3 = 'postponed' THEN coalesce(postponed_at, ?6) ELSE postponed_at END,
    lease_until = NULL, version = version + 1
    WHERE id = ?1 AND token = ?2 AND state = 'running' AND (?10 IS NULL OR lease_until = ?10) AND ?4 IS NOT NULL"
);

impl<D: Sql> Store<D> {
    /// Stores results. A stale token changes nothing and is told as such. A report that was stored by an earlier call
    /// whose answer was lost is told as stored.
    ///
    /// # Errors
    /// What the database said; call it again with the same.
    pub async fn complete(&self, completions: &[Completion], now: WallMs) -> Result<Vec<Finished>, Error> {
        if completions.is_empty() {
            return Ok(Vec::new());
        }
        let row = |c: &Completion| {
            vec![
                rows::id(c.lease.id),
                c.lease.token.into(),
                c.result.as_str().into(),
                now.0.into(),
                c.note.clone().into(),
            ]
        };
        let leases: Vec<_> = completions.iter().map(|c| c.lease).collect();
        let statement = Statement::many(COMPLETE, completions.iter().map(row).collect());
        let done = self.db.execute(vec![statement]).await?;
        if done.results.first().and_then(|out| out.rows_affected) == Some(completions.len() as u64) {
            // The common case costs no second statement. Nobody but the holder of the token changes the version of
            // a running job, except a cancel that lost the race; the version here is a hint (0: unknown).
            let all = |lease| Finished { lease, state: Some(State::Completed), version: 0 };
            return Ok(leases.into_iter().map(all).collect());
        }
        let found = self.db.query(fates_of(&leases), Level::Session, Some(&done.offset)).await?;
        let mut fates = fates(&leases, &found.values)?;
        // Anything else was done by somebody else under this token: an expiry, for one.
        for fate in &mut fates {
            fate.state = fate.state.filter(|state| *state == State::Completed);
        }
        Ok(fates)
    }

    /// Records ends without a result, and moves each job on by the rules of [`machine::next`].
    ///
    /// # Errors
    /// What the database said; call it again with the same.
    pub async fn end(&self, endings: &[Ending], now: WallMs) -> Result<Vec<Finished>, Error> {
        if endings.is_empty() {
            return Ok(Vec::new());
        }
        let params: Vec<Vec<Value>> = endings.iter().map(|e| ending(e, &self.postponement, now)).collect();
        let leases: Vec<_> = endings.iter().map(|e| e.lease).collect();
        let statements = vec![
            Statement::many(RECORD, params.clone()),
            Statement::many(END, params),
            Statement::new(
                "DELETE FROM jobs_attempts WHERE (job_id, token) IN (
                    SELECT a.job_id, a.token FROM json_each(?1) l JOIN jobs_attempts a
                    ON a.job_id = l.value ->> 0 AND a.token <= (l.value ->> 1) - 100)",
                vec![list(&leases).into()],
            ),
            // In the same transaction: a moment later the job may have been claimed again.
            fates_of(&leases),
        ];
        let done = self.db.execute(statements).await?;
        fates(&leases, done.results.last().map_or(&[], |out| &out.values))
    }
}

/// What each attempt's job is now.
fn fates_of(leases: &[Lease]) -> Statement {
    Statement::new(
        "SELECT j.id, j.token, j.state, j.version FROM json_each(?1) l JOIN jobs j
         ON j.id = l.value ->> 0 AND j.token = l.value ->> 1",
        vec![list(leases).into()],
    )
}

/// Reads what [`fates_of`] found: nothing for an attempt that is not, or never was, the latest.
fn fates(leases: &[Lease], found: &[Vec<Value>]) -> Result<Vec<Finished>, Error> {
    let read = |values: &Vec<Value>| {
        let mut r = rows::Row::new(values);
        let lease = Lease { id: r.uuid()?, token: r.number()? };
        Ok((lease, (r.state()?, r.number()?)))
    };
    let found = found.iter().map(read).collect::<Result<HashMap<_, _>, Error>>()?;
    let fate = |lease: &Lease| match found.get(lease) {
        // Still running under this token: an expiry that was refused because the lease was renewed.
        Some(&(state, version)) if state != State::Running => {
            Finished { lease: *lease, state: Some(state), version }
        }
        _ => Finished { lease: *lease, state: None, version: 0 },
    };
    Ok(leases.iter().map(fate).collect())
}

fn list(leases: &[Lease]) -> String {
    Value::Array(leases.iter().map(|l| json!([rows::id(l.id), l.token])).collect()).to_string()
}

fn ending(e: &Ending, postponement: &Postponement, now: WallMs) -> Vec<Value> {
    vec![
        rows::id(e.lease.id),
        e.lease.token.into(),
        e.reason.as_str().into(),
        cut(&e.detail).into(),
        e.retry_at.0.into(),
        now.0.into(),
        u8::from(machine::kills_worker(e.reason)).into(),
        u8::from(machine::costs_nothing(e.reason)).into(),
        u8::from(machine::is_last(e.reason)).into(),
        e.mark.into(),
        machine::POISON_KILLS.into(),
        u8::from(machine::is_made_up_for(e.reason)).into(),
        postponement.count_max.into(),
        postponement.span_max_ms.into(),
        postponement.floor_ms.into(),
        postponement.floor_cap_ms.into(),
    ]
}

fn cut(detail: &str) -> &str {
    &detail[..detail.floor_char_boundary(DETAIL_MAX)]
}
