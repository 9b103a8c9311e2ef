//! The event loop: one thread for what comes from outside at any time: signals, timers, child processes, links. The data path is other
//! threads, which block.

use std::io;
use std::thread::{self, JoinHandle};

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// A thread that runs tasks until this is dropped. A task must not block: all others would wait for it.
#[derive(Debug)]
pub struct EventLoop {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl EventLoop {
    /// Starts the thread. Fails where the system has none for us, or no descriptors.
    pub fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = thread::Builder::new().name("event loop".to_owned()).spawn(move || {
            // Told to stop, or nobody is left to tell it: the same.
            let _stopped = runtime.block_on(stopped);
            runtime.shutdown_background();
        })?;
        Ok(Self { handle, stop: Some(stop), thread: Some(thread) })
    }

    /// What tasks are spawned on, from any thread.
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
    fn tasks_run_while_the_event_loop_is_there_and_end_with_it() {
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
