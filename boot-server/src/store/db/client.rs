//! The driver's connection, for a thread that waits. PostgreSQL answers in the order in which it is asked, so what is
//! posted goes out along with the next thing that is waited for, and costs no round trip of its own.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tokio::runtime::{Builder, Runtime};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Config, Error, Socket, Statement};

/// Statements that are under way at once; then their outcome is waited for, so that a job of any size has bounded memory.
const POSTED_MAX: usize = 1024;

/// A parameter that outlives its statement.
pub(super) type Owned = Box<dyn ToSql + Sync + Send>;

/// A statement that was sent, and what becomes of it.
type Posted = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;
/// What reads and writes the socket, while somebody waits.
type Wire = Box<dyn FnMut(&mut Context<'_>) -> Poll<Option<Result<AsyncMessage, Error>>> + Send>;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotConnected {
    /// The driver or PostgreSQL.
    #[error(transparent)]
    Postgres(#[from] Error),
    /// This system.
    #[error(transparent)]
    System(#[from] io::Error),
}

/// A connection.
pub(super) struct Client {
    /// Taken only when it ends: the driver then says good-bye.
    driver: Option<Arc<tokio_postgres::Client>>,
    wire: Wire,
    runtime: Runtime,
    posted: Vec<Posted>,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// Where nobody answers, or does not let us in.
    pub(super) fn connect<T>(config: &Config, tls: T) -> Result<Self, NotConnected>
    where
        T: MakeTlsConnect<Socket>,
        T::Stream: Send + 'static,
    {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (driver, mut connection) = runtime.block_on(config.connect(tls))?;
        let wire = Box::new(move |cx: &mut Context<'_>| connection.poll_message(cx));
        Ok(Self { driver: Some(Arc::new(driver)), wire, runtime, posted: Vec::new() })
    }

    /// True where it is of no more use.
    pub(super) fn is_closed(&self) -> bool {
        self.driver.as_ref().is_none_or(|driver| driver.is_closed())
    }

    /// Asks, and waits for the answer. Where what was posted before failed, PostgreSQL refuses this too, and the error is
    /// the first one.
    ///
    /// # Errors
    /// What PostgreSQL says.
    pub(super) fn ask<T>(
        &mut self,
        asking: impl AsyncFnOnce(&tokio_postgres::Client) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let (driver, posted) = (self.driver.clone(), std::mem::take(&mut self.posted));
        self.wait(async move {
            let Some(driver) = driver else { return Err(Error::__private_api_timeout()) };
            let answer = asking(&driver).await;
            match answer {
                // A statement that failed and was rolled back since is no more news.
                Ok(answer) => Ok(answer),
                Err(cause) => Err(settled(posted).await.err().unwrap_or(cause)),
            }
        })
    }

    /// Sends a statement and does not wait: whether it failed is said by what is asked next.
    ///
    /// # Errors
    /// Where it cannot be sent, or one that was posted before failed.
    pub(super) fn post(&mut self, statement: Statement, values: Vec<Owned>) -> Result<(), Error> {
        if self.posted.len() >= POSTED_MAX {
            let posted = std::mem::take(&mut self.posted);
            self.wait(settled(posted))?;
        }
        let Some(driver) = self.driver.clone() else { return Err(Error::__private_api_timeout()) };
        let mut sent: Posted =
            Box::pin(async move { driver.execute_raw(&statement, values).await.map(drop) });
        // The driver sends when it is first polled; nobody is woken, because whoever waits next looks at all of them.
        match sent.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => {
                self.posted.push(sent);
                Ok(())
            }
        }
    }

    fn wait<T>(&mut self, what: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let mut what = pin!(what);
        let wire = &mut self.wire;
        self.runtime.block_on(poll_fn(|cx| {
            loop {
                match wire(cx) {
                    Poll::Ready(Some(Ok(AsyncMessage::Notice(said)))) => {
                        tracing::debug!(message = said.message(), "PostgreSQL says");
                    }
                    Poll::Ready(Some(Ok(_))) => {}
                    Poll::Ready(Some(Err(cause))) => return Poll::Ready(Err(cause)),
                    Poll::Ready(None) | Poll::Pending => return what.as_mut().poll(cx),
                }
            }
        }))
    }
}

/// The first error of these, in their order.
async fn settled(posted: Vec<Posted>) -> Result<(), Error> {
    let mut outcome = Ok(());
    for one in posted {
        outcome = outcome.and(one.await);
    }
    outcome
}

impl Drop for Client {
    fn drop(&mut self) {
        self.posted.clear();
        self.driver = None;
        let wire = &mut self.wire;
        self.runtime.block_on(poll_fn(|cx| {
            loop {
                match wire(cx) {
                    Poll::Ready(Some(Ok(_))) => {}
                    Poll::Ready(_) => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                }
            }
        }));
    }
}
