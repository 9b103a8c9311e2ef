//! The event loop: one tokio thread that handles signals, timers, child processes and links. Disk and stream I/O runs on other,
//! blocking threads.

use std::io;
use std::thread::{self, JoinHandle};

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// A thread that runs asynchronous tasks until this value is dropped.
///
/// A task must not block, because all other tasks would wait for it.
#[derive(Debug)]
pub struct EventLoop {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl EventLoop {
    /// Starts the thread.
    ///
    /// # Errors
    /// Returns an error if the system provides no thread or no file descriptors.
    pub fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = thread::Builder::new().name("event loop".to_owned()).spawn(move || {
            // A dropped sender means stop, too.
            let _stopped = runtime.block_on(stopped);
            runtime.shutdown_background();
        })?;
        Ok(Self { handle, stop: Some(stop), thread: Some(thread) })
    }

    /// Returns the handle that spawns tasks on this loop from any thread.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for EventLoop {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn tasks_run_until_the_event_loop_is_dropped() {
        struct Held(mpsc::Sender<&'static str>);
        impl Drop for Held {
            fn drop(&mut self) {
                let _told = self.0.send("dropped");
            }
        }
        let event_loop = EventLoop::start().unwrap();
        let (tell, told) = mpsc::channel();
        event_loop.handle().spawn(async move {
            let held = Held(tell);
            tokio::time::sleep(Duration::from_millis(1)).await;
            let _told = held.0.send("ran");
            pending::<()>().await;
        });
        assert_eq!(told.recv_timeout(Duration::from_secs(60)), Ok("ran"));
        drop(event_loop);
        assert_eq!(told.recv_timeout(Duration::from_secs(60)), Ok("dropped"));
    }
}
