//! The `#[handler]` attribute of `whit-sdk`. Use it from there.
//!
//! The attribute needs three things from a function: its name, whether it is `async` and whether
//! it takes an argument. That is read off the tokens directly, so that a function which uses the
//! SDK does not have to compile a parser for all of Rust first.

use proc_macro::{Delimiter, Span, TokenStream, TokenTree};

/// Makes a function the handler of every request to this component.
///
/// The function takes an `http::Request<Body>`, or nothing, and returns anything that is
/// `IntoResponse`. It may be `async`. It stays callable, so that a unit test can call it.
#[proc_macro_attribute]
pub fn handler(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let expanded = match arguments.into_iter().next() {
        Some(argument) => Err(Misuse::at(&argument, "#[handler] takes no arguments")),
        None => Signature::read(item.clone()).map(|signature| signature.export()),
    };
    // The function is kept even when it cannot be a handler, so that one mistake is one message.
    let mut output = item;
    output.extend(expanded.unwrap_or_else(Misuse::into_compile_error));
    output
}

struct Signature {
    name: String,
    is_async: bool,
    takes_request: bool,
}

impl Signature {
    fn read(item: TokenStream) -> Result<Self, Misuse> {
        let mut tokens = item.into_iter();
        let mut is_async = false;
        for token in tokens.by_ref() {
            match &token {
                TokenTree::Ident(word) if word.to_string() == "fn" => break,
                TokenTree::Ident(word) if word.to_string() == "async" => is_async = true,
                TokenTree::Ident(word) if NOT_FUNCTIONS.contains(&&*word.to_string()) => {
                    return Err(Misuse::at(&token, "#[handler] goes on a function"));
                }
                _ => {}
            }
        }
        let Some(TokenTree::Ident(name)) = tokens.next() else {
            return Err(Misuse::new(
                Span::call_site(),
                "#[handler] goes on a function",
            ));
        };
        match tokens.next() {
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Parenthesis => {
                Ok(Signature {
                    name: name.to_string(),
                    is_async,
                    takes_request: !group.stream().is_empty(),
                })
            }
            _ => Err(Misuse::new(name.span(), "a handler cannot be generic")),
        }
    }

    /// The code that makes the function the component's `wasi:http/incoming-handler`. Off the wasm
    /// target it only checks the types, so that mistakes show in an editor and in `cargo test`.
    fn export(&self) -> TokenStream {
        let Signature { name, .. } = self;
        let argument = if self.takes_request { "request" } else { "" };
        let call = if self.is_async {
            format!("::whit_sdk::block_on({name}({argument}))")
        } else {
            format!("{name}({argument})")
        };
        format!(
            r#"const _: () = {{
                #[allow(unused_variables, clippy::let_unit_value)]
                fn respond(
                    request: ::whit_sdk::http::Request<::whit_sdk::Body>,
                ) -> ::whit_sdk::http::Response<::whit_sdk::Body> {{
                    ::whit_sdk::IntoResponse::into_response({call})
                }}
                #[cfg(not(target_arch = "wasm32"))]
                const _: fn(
                    ::whit_sdk::http::Request<::whit_sdk::Body>,
                ) -> ::whit_sdk::http::Response<::whit_sdk::Body> = respond;
                #[cfg(target_arch = "wasm32")]
                const _: () = {{
                    struct Component;
                    impl ::whit_sdk::__private::Guest for Component {{
                        fn handle(
                            request: ::whit_sdk::__private::IncomingRequest,
                            response_out: ::whit_sdk::__private::ResponseOutparam,
                        ) {{
                            ::whit_sdk::__private::serve(request, response_out, respond)
                        }}
                    }}
                    ::whit_sdk::__private::export!(Component);
                }};
            }};"#
        )
        .parse()
        .expect("the code above is well-formed Rust")
    }
}

/// What an item may start with instead of `fn`.
const NOT_FUNCTIONS: [&str; 8] = [
    "struct", "enum", "union", "trait", "impl", "mod", "use", "static",
];

/// A use of the attribute that cannot work, and where.
struct Misuse {
    span: Span,
    message: &'static str,
}

impl Misuse {
    fn new(span: Span, message: &'static str) -> Self {
        Misuse { span, message }
    }

    fn at(token: &TokenTree, message: &'static str) -> Self {
        Misuse::new(token.span(), message)
    }

    fn into_compile_error(self) -> TokenStream {
        let error: TokenStream = format!("::core::compile_error!({:?});", self.message)
            .parse()
            .expect("the code above is well-formed Rust");
        error
            .into_iter()
            .map(|mut token| {
                token.set_span(self.span);
                token
            })
            .collect()
    }
}
