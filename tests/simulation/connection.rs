//! The connection of one process of the operator: a service that takes the requests of kube's client.
//!
//! A service has to be `Send`, and the network is not. So it is kept for the thread, on which all of a schedule runs.

use std::{
    cell::RefCell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use futures::{FutureExt, future::BoxFuture};
use http::{Request, Response};
use hyper::body::{Bytes, Frame};
use kube::client::Body;
use tokio::sync::oneshot;
use tower::{BoxError, Service};

use crate::{
    executor::ProcessId,
    network::{Caller, Network, Reply},
    watches::{Id, Next},
};

thread_local!(static NETWORK: RefCell<Option<Rc<Network>>> = const { RefCell::new(None) });

/// Sets the network of this thread.
pub fn install(network: Option<Rc<Network>>) {
    NETWORK.set(network);
}

pub fn network() -> Option<Rc<Network>> {
    NETWORK.try_with(|network| network.borrow().clone()).ok().flatten()
}

/// The connection of a process.
#[derive(Clone, Copy)]
pub struct Connection {
    pub process: ProcessId,
    pub place: usize,
}

impl Connection {
    fn send(self, request: &Request<Bytes>) -> oneshot::Receiver<Result<(u16, ReplyBody), String>> {
        let (sender, receiver) = oneshot::channel();
        if let Some(network) = network() {
            let caller = Caller::Operator { place: self.place, process: self.process };
            network.send_request(caller, request, move |reply| {
                let reply = match reply {
                    Reply::Answer(answer) => {
                        Ok((answer.code(), ReplyBody::Text(Some(answer.body()))))
                    }
                    Reply::Watch(id) => Ok((200, ReplyBody::Watch(Open(id)))),
                    Reply::Unreachable => Err("connection refused".to_owned()),
                };
                let _ = sender.send(reply);
            });
        }
        receiver
    }
}

impl Service<Request<Body>> for Connection {
    type Response = Response<ReplyBody>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<ReplyBody>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let this = *self;
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect_bytes().await?;
            let reply = this.send(&Request::from_parts(head, body));
            let (code, body) = reply.await??;
            Ok(Response::builder().status(code).body(body)?)
        }
        .boxed()
    }
}

/// The body of an answer: a text, or the events of a watch.
pub enum ReplyBody {
    Text(Option<Bytes>),
    Watch(Open),
}

/// A watch that is open. Dropping it closes the connection.
pub struct Open(Id);

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(network) = network() {
            network.watches.close(self.0);
        }
    }
}

impl hyper::body::Body for ReplyBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut *self {
            Self::Text(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Self::Watch(Open(id)) => {
                let Some(network) = network() else { return Poll::Ready(None) };
                network.poll_watch(*id, context.waker()).map(|next| match next {
                    Next::Line(line, _) => Some(Ok(Frame::data(line))),
                    Next::End => None,
                })
            }
        }
    }
}
