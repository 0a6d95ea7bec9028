use super::*;

/// Of an environment with these variables.
fn proxies(variables: &[(&str, &str)]) -> Result<Proxies, InvalidProxy> {
    Proxies::read(|name| {
        let found = variables.iter().find(|(variable, _)| *variable == name)?;
        Some(found.1.to_owned())
    })
}

/// The proxy on the way to a URL, or "".
fn way(variables: &[(&str, &str)], url: &str) -> String {
    let proxies = proxies(variables).unwrap();
    let proxy = proxies.of(&Url::parse(url).unwrap());
    proxy.map_or_else(String::new, Proxy::to_string)
}

#[test]
fn each_scheme_has_its_proxy_and_the_upper_case_and_values_that_are_not_empty_win() {
    let (plain, tls) = ("http://example.com", "https://example.com");
    for (variables, wanted) in [
        (&[][..], ["", ""]),
        (&[("HTTP_PROXY", "http://h:1")], ["h:1", ""]),
        (&[("https_proxy", "http://s:1")], ["", "s:1"]),
        (&[("ALL_PROXY", "http://a:1")], ["a:1", "a:1"]),
        (&[("all_proxy", "a"), ("http_proxy", "h")], ["h:80", "a:80"]),
        (
            &[("HTTPS_PROXY", "up"), ("https_proxy", "low")],
            ["", "up:80"],
        ),
        (
            &[("HTTPS_PROXY", ""), ("https_proxy", "low")],
            ["", "low:80"],
        ),
        (&[("HTTPS_PROXY", " "), ("ALL_PROXY", "")], ["", ""]),
    ] {
        assert_eq!(
            [way(variables, plain), way(variables, tls)],
            wanted,
            "{variables:?}"
        );
    }
}

#[test]
fn a_proxy_may_be_written_as_curl_and_go_accept_it_and_never_shows_its_user() {
    for (text, shown, uri) in [
        (
            "http://127.0.0.1:18121",
            "127.0.0.1:18121",
            "http://127.0.0.1:18121/",
        ),
        ("proxy:3128", "proxy:3128", "http://proxy:3128/"),
        ("10.0.0.1:3128", "10.0.0.1:3128", "http://10.0.0.1:3128/"),
        (" proxy ", "proxy:80", "http://proxy/"),
        (
            "http://[fd00::1]:3128/path?x",
            "[fd00::1]:3128",
            "http://[fd00::1]:3128/",
        ),
        ("https://proxy", "proxy:443", "https://proxy/"),
        (
            "user:password@proxy:1",
            "proxy:1",
            "http://user:password@proxy:1/",
        ),
        (
            "http://user:p^ss@proxy:1",
            "proxy:1",
            "http://user:p%5Ess@proxy:1/",
        ),
        ("socks5://proxy", "proxy:1080", "socks5://proxy:1080"),
        ("socks5h://proxy:1", "proxy:1", "socks5://proxy:1"),
    ] {
        let proxy = Proxy::parse(text).unwrap_or_else(|| panic!("{text}"));
        assert_eq!(
            (proxy.to_string().as_str(), format!("{proxy:?}").as_str()),
            (shown, shown)
        );
        assert_eq!(
            proxy.uri().to_string().trim_end_matches('/'),
            uri.trim_end_matches('/')
        );
    }
    for text in [
        "socks4://proxy",
        "ftp://proxy",
        "http://",
        "http://[::1",
        "a b",
    ] {
        let error = proxies(&[("HTTPS_PROXY", text)]).unwrap_err();
        assert_eq!(error, InvalidProxy("HTTPS_PROXY".to_owned()), "{text}");
    }
}

#[test]
fn no_proxy_may_be_written_as_curl_and_go_accept_it() {
    let server = "https://10.96.0.1:6443";
    let six = "https://[fd00::1]:6443";
    let name = "https://kubernetes.default.svc:6443";
    for (no_proxy, url, direct) in [
        ("10.96.0.1", server, true),
        ("10.0.0.0/8", server, true),
        ("localhost,10.96.0.1,", server, true),
        (",,localhost , 10.96.0.1", server, true),
        ("localhost 10.96.0.1", server, true),
        ("10.96.0.1:6443", server, true),
        ("10.96.0.1:443", server, false),
        ("10.96.0.2,10.97.0.0/16", server, false),
        ("*", server, true),
        ("a,*,b", six, true),
        ("fd00::1", six, true),
        ("[fd00::1]", six, true),
        ("[fd00::1]:6443", six, true),
        ("[fd00::1]:443", six, false),
        ("fd00::/8", six, true),
        ("kubernetes.default.svc", name, true),
        ("KUBERNETES.default.SVC:6443", name, true),
        (".svc", name, true),
        ("svc", name, true),
        ("*.default.svc", name, true),
        ("ernetes.default.svc", name, false),
        (".svc:443", name, false),
        ("10.96.0.1:https", server, true),
        ("//,[,:,::,/8,[x", server, false),
        ("", server, false),
    ] {
        let variables = [
            ("HTTPS_PROXY", "http://127.0.0.1:18121"),
            ("NO_PROXY", no_proxy),
        ];
        let way = way(&variables, url);
        let wanted = if direct { "" } else { "127.0.0.1:18121" };
        assert_eq!(way, wanted, "NO_PROXY={no_proxy} {url}");
        let lower = [("all_proxy", "127.0.0.1:18121"), ("no_proxy", no_proxy)];
        assert_eq!(
            super::tests::way(&lower, url),
            wanted,
            "no_proxy={no_proxy} {url}"
        );
    }
}

#[test]
fn loopback_is_reached_directly_in_all_its_spellings() {
    for (url, direct) in [
        ("http://127.0.0.1:1", true),
        ("http://127.9.9.9", true),
        ("https://[::1]:1", true),
        ("http://localhost", true),
        ("https://a.localhost", true),
        ("http://10.0.0.1", false),
        ("http://localhost.example.com", false),
    ] {
        let way = way(&[("ALL_PROXY", "proxy")], url);
        assert_eq!(way.is_empty(), direct, "{url}");
    }
}
