//! The forms a pull can take besides JSON lines: metrics, days as CSV, SenML; and the document that describes them all.

use super::*;

/// Two days of one point: ten seconds apart from noon, UTC.
const UNTIL_THE_SECOND_EVENING: u64 = 10_000;
/// Midnight in Paris is 22:00 UTC: the last reading of the first day, and the first of the next.
const LAST_OF_FIRST_DAY: u64 = 3_599;

fn headers(of: &Answer) -> [Option<&str>; 3] {
    [of.header("content-type"), of.header("cache-control"), of.header("etag")]
}

fn csv_numbers(text: &str) -> Vec<u64> {
    let lines = text.split("\r\n").skip(1).filter(|line| !line.is_empty());
    lines
        .map(|line| line.split(',').next().and_then(|seq| seq.parse().ok()).unwrap_or_else(|| panic!("{line:?}")))
        .collect()
}

fn text(answer: &Answer) -> &str {
    std::str::from_utf8(&answer.body).expect("UTF-8")
}

// ---- metrics --------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn metrics_show_what_the_peer_may_see_and_how_the_gateway_is() {
    let gateway = Gateway::start();
    for name in [PUBLIC, INTERNAL, PERSONAL] {
        gateway.archive.produce(name, 10);
    }
    gateway.board.raise(Code::WaterLeak, "water/hall", "flows");
    gateway
        .client("agglo")
        .get(&format!(
            "/v1/observations?after={}",
            gateway.client("agglo").get("/v1/observations?limit=4").await.next()
        ))
        .await;
    let told = gateway.client("press").get("/metrics").await;
    assert_eq!(told.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let lines: Vec<_> = text(&told).lines().collect();
    for line in [
        r#"clocher_point_value{point="electricity/mairie/power",label="Salle des fêtes",unit="W",sharing="public"} 15"#,
        "clocher_point_good{point=\"electricity/mairie/power\"} 1",
        "clocher_point_reading_timestamp_seconds{point=\"electricity/mairie/power\"} 1780315300",
        "clocher_store_readings_total 30",
        "clocher_clock_source{source=\"ntp\"} 1",
        "clocher_clock_error_seconds 0.05",
        "clocher_conditions{code=\"water-leak\",severity=\"alarm\"} 1",
        "clocher_conditions{code=\"air-stale\",severity=\"notice\"} 0",
    ] {
        assert!(lines.contains(&line), "{line} in {lines:#?}");
    }
    assert!(!text(&told).contains(INTERNAL) && !text(&told).contains(PERSONAL));
    assert!(!text(&told).contains("agglo"), "how far others are is not for everyone");

    let open =
        gateway.client("agglo").try_get("/metrics", &[("accept", "application/openmetrics-text")]).await.expect("told");
    assert_eq!(open.header("content-type"), Some("application/openmetrics-text; version=1.0.0; charset=utf-8"));
    assert!(text(&open).ends_with("# EOF\n") && text(&open).contains("clocher_peer_lag_readings{peer=\"agglo\"} 26\n"));
}

#[tokio::test]
async fn metrics_are_in_the_access_register_and_move_no_cursor() {
    let gateway = Gateway::start();
    gateway.archive.produce(PUBLIC, 10);
    gateway.archive.produce(PERSONAL, 5);
    for _ in 0..50 {
        gateway.client("energy").get("/metrics").await;
    }
    let accesses = gateway.accesses();
    assert_eq!(accesses.len(), 1, "{accesses:?}");
    let first = &accesses[0];
    assert_eq!(
        (&first["peer"], &first["newest"], &first["from"], &first["to"]),
        (&json!("energy"), &json!(true), &json!(10), &json!(15))
    );
    assert!(gateway.archive.acknowledged().is_empty());
}

// ---- days -----------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_day_is_the_commune_s_and_holds_what_the_peer_may_see_of_it() {
    let gateway = Gateway::start();
    gateway.archive.produce(PUBLIC, 2_000);
    gateway.archive.produce(PERSONAL, 10);
    gateway.archive.lose(7);
    gateway.archive.produce(PUBLIC, UNTIL_THE_SECOND_EVENING - 2_017);
    let client = gateway.client("agglo");
    let first = client.get("/v1/days/2026-06-01.csv").await;
    let expected: Vec<u64> = (1..=2_000).chain([2_011]).chain(2_018..=LAST_OF_FIRST_DAY).collect();
    assert_eq!(csv_numbers(text(&first)), expected);
    let lost = text(&first).split("\r\n").find(|line| line.starts_with("2011,")).expect("the gap's line");
    assert_eq!(lost, "2011,,2026-06-01T17:35:10.000Z,2026-06-01T19:35:10+02:00,,,lost,size-limit,7,2017,ntp,2061");
    let second = client.get("/v1/days/2026-06-02.csv").await;
    assert_eq!(csv_numbers(text(&second)), (LAST_OF_FIRST_DAY + 1..=UNTIL_THE_SECOND_EVENING).collect::<Vec<_>>());
    assert!(gateway.archive.acknowledged().is_empty());
    let read: u64 = gateway.accesses().iter().filter_map(|access| access["count"].as_u64()).sum();
    assert!(gateway.accesses().iter().all(|access| access["again"] == true) && read > 0, "{:?}", gateway.accesses());

    for encoding in ["gzip", "zstd"] {
        let packed = client.try_get("/v1/days/2026-06-01.csv", &[("accept-encoding", encoding)]).await.expect("a day");
        assert_eq!(packed.header("content-encoding"), Some(encoding));
        let mut unpacked = Vec::new();
        let mut body = &packed.body[..];
        if encoding == "gzip" {
            std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(body), &mut unpacked).expect("gzip");
        } else {
            zstd::stream::copy_decode(&mut body, &mut unpacked).expect("zstd");
        }
        assert!(unpacked == first.body && packed.body.len() * 5 < unpacked.len(), "{encoding}: {}", packed.body.len());
    }
}

#[tokio::test]
async fn a_day_that_is_over_has_a_tag_and_the_present_one_has_none() {
    let gateway = Gateway::start();
    gateway.archive.produce(PUBLIC, UNTIL_THE_SECOND_EVENING);
    let client = gateway.client("agglo");
    let over = client.get("/v1/days/2026-06-01.csv").await;
    let tag = over.header("etag").expect("a tag").to_owned();
    let [kind, cache, _] = headers(&over);
    assert_eq!((kind, cache), (Some("text/csv; charset=utf-8; header=present"), Some("private, no-cache")));
    assert_eq!(headers(&client.get("/v1/days/2026-06-02.csv").await)[1..], [Some("no-store"), None]);

    gateway.archive.produce(PUBLIC, 100);
    let again = client.try_get("/v1/days/2026-06-01.csv", &[("if-none-match", &tag)]).await.expect("an answer");
    assert_eq!((again.status.as_u16(), again.body.len(), again.header("etag")), (304, 0, Some(tag.as_str())));
    assert_ne!(gateway.client("press").get("/v1/days/2026-06-01.csv").await.header("etag"), None);
    gateway.clock.learn(clocher::clock::Sample {
        stamp: Stamp { boot: 1, mono_ms: 20_000_000 },
        unix_ms: NOON + 20_005_000,
        error_ms: 1,
        source: Source::Ntp,
        straight_ms: 0,
    });
    let moved = client.try_get("/v1/days/2026-06-01.csv", &[("if-none-match", &tag)]).await.expect("an answer");
    assert_eq!(moved.status, 200, "a day that was dated anew is another file");
    assert_ne!(moved.header("etag"), Some(tag.as_str()));
}

#[tokio::test]
async fn the_package_names_every_day_there_is_and_no_other_is_found() {
    let gateway = Gateway::start();
    let client = gateway.client("agglo");
    assert_eq!(client.get("/v1/days").await.json()["resources"], json!([]));
    gateway.archive.produce(PUBLIC, UNTIL_THE_SECOND_EVENING);
    let package = client.get("/v1/days").await;
    let days: Vec<_> =
        package.json()["resources"].as_array().expect("days").iter().map(|day| day["path"].clone()).collect();
    assert_eq!(days, ["days/2026-06-01.csv", "days/2026-06-02.csv"]);
    assert_eq!((&package.json()["name"], &package.json()["undated"]), (&json!("saint-exemple-mairie"), &json!([])));
    for day in days {
        assert_eq!(client.get(&format!("/v1/{}", day.as_str().expect("a path"))).await.status, 200);
    }
    for (day, status, code) in
        [("2026-05-30", 404, "no-such-day"), ("2026-06-04", 404, "no-such-day"), ("2026-02-30", 400, "bad-query")]
    {
        let refused = client.get(&format!("/v1/days/{day}.csv")).await;
        assert_eq!((refused.status.as_u16(), &refused.json()["error"]), (status, &json!(code)), "{day}");
        assert!(refused.json()["detail"].as_str().expect("a text").contains(day));
    }
}

/// Fills one day with a reading a second: 8 MB of CSV, which no buffers on the way can hold.
fn fill_a_day(gateway: &Gateway) {
    let mut shelf = gateway.archive.shelf.lock().expect("whole");
    for seq in 1..=80_000 {
        let stamp = Stamp { boot: 1, mono_ms: 36_000_000 + seq * 1_000 };
        let reading = Reading { point: id(PUBLIC), stamp, value: Some(1.0), quality: Quality::Good };
        shelf.entries.push(Entry::Reading(Stored { seq, reading }));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_day_nobody_reads_holds_up_nobody_but_the_same_peer_s_next_day() {
    let gateway = Gateway::start();
    fill_a_day(&gateway);
    let client = gateway.client("agglo");
    let stuck = client.begin("/v1/days/2026-06-02.csv").await;
    let next = tokio::spawn({
        let client = client.clone();
        async move { client.get("/v1/days/2026-06-02.csv").await }
    });
    for path in ["/v1/health", "/v1/observations?limit=10", "/metrics", "/v1/days/schema.json"] {
        assert_eq!(client.get(path).await.status, 200, "{path}");
    }
    let other = gateway.client("press").get("/v1/days/2026-06-02.csv").await;
    assert_eq!(csv_numbers(text(&other)).len(), 80_000, "another peer has its own place");
    assert!(!next.is_finished());
    drop(stuck);
    assert_eq!(csv_numbers(text(&next.await.expect("no panic"))).len(), 80_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_day_cut_short_never_looks_whole() {
    for why in ["stop", "broken", "withdrawn"] {
        let gateway = Gateway::start();
        fill_a_day(&gateway);
        let mut reading = gateway.client("energy").begin("/v1/days/2026-06-02.csv").await;
        reading.frame().await.expect("a part").expect("sound");
        match why {
            "stop" => assert_eq!(gateway.supervisor.stop(Duration::from_secs(10)).await, [] as [&str; 0]),
            "broken" => gateway.archive.shelf.lock().expect("whole").broken = true,
            _ => gateway.consents.withdraw(withdrawn("energy")).expect("recorded"),
        }
        let mut ended = None;
        while let Some(frame) = reading.frame().await {
            ended = Some(frame);
        }
        assert!(matches!(ended, Some(Err(_))), "{why}: {ended:?}");
    }
}

// ---- SenML ----------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn senml_is_given_by_accept_and_followed_by_link() {
    let gateway = Gateway::start();
    gateway.archive.produce(PUBLIC, 25);
    gateway.archive.lose(5);
    gateway.archive.produce(PUBLIC, 10);
    let client = gateway.client("agglo");
    let (mut path, mut values, mut gaps) = ("/v1/observations?limit=10".to_owned(), Vec::new(), Vec::new());
    loop {
        let page = client.try_get(&path, &[("accept", "application/senml+json")]).await.expect("a pack");
        assert_eq!(page.header("content-type"), Some("application/senml+json"));
        let pack = page.json();
        let records = pack.as_array().expect("an array");
        assert_eq!(records[0]["bn"], "saint-exemple/mairie/");
        for record in records {
            match record["n"].as_str() {
                Some(PUBLIC) => values.push(record["v"].as_f64().expect("a number")),
                Some(":gap:size-limit") => gaps.push(record["v"].clone()),
                _ => {}
            }
        }
        let links: Vec<_> =
            page.headers.get_all("link").iter().map(|link| link.to_str().expect("text").to_owned()).collect();
        assert!(links.iter().all(|link| link.starts_with("</v1/observations?")), "{links:?}");
        if records.last().expect("a record")["vb"] == true {
            break;
        }
        let alternate = links.iter().find(|link| link.contains("rel=\"alternate\"")).expect("the same as rows");
        let rows = client.get(alternate.trim_start_matches('<').split('>').next().expect("a target")).await;
        assert_eq!(numbers(text(&rows).trim()).len() + usize::from(text(&rows).contains("\"gap\"")), 10);
        let next = links.iter().find(|link| link.contains("rel=\"next\"")).expect("where to go on");
        path = next.trim_start_matches('<').split('>').next().expect("a target").to_owned();
        assert!(path.contains("limit=10"), "{path}");
    }
    let expected: Vec<_> = (1..=25).chain(31..=40).map(|seq| f64::from(seq) * 1.5).collect();
    assert_eq!((values, gaps), (expected, vec![json!(5.0)]));
    let chosen =
        client.try_get("/v1/observations?format=rows", &[("accept", "application/senml+json")]).await.expect("rows");
    assert_eq!(chosen.header("content-type"), Some("application/x-ndjson"));
    assert_eq!(client.get("/v1/observations?format=senml&from=1&to=3").await.json().as_array().map(Vec::len), Some(4));
}

#[tokio::test]
async fn rows_and_ranges_say_where_to_go_on_too() {
    let gateway = Gateway::start();
    gateway.archive.produce(PUBLIC, 25);
    let client = gateway.client("agglo");
    let page = client.get("/v1/observations?limit=10&wait=0").await;
    let expected = format!("</v1/observations?after={}&limit=10&wait=0>; rel=\"next\"", page.next());
    assert_eq!(page.header("link"), Some(expected.as_str()));
    let range = client.get("/v1/observations?limit=10&from=1&to=15").await;
    assert_eq!(range.header("link"), Some("</v1/observations?continue=11&from=1&limit=10&to=15>; rel=\"next\""));
    let rest = client.get("/v1/observations?continue=11&from=1&limit=10&to=15").await;
    assert_eq!((rest.lines().len(), rest.header("link")), (6, None));
}

// ---- what holds for every form ----------------------------------------------------------------------------------------

#[tokio::test]
async fn no_form_tells_of_a_personal_point_once_its_consent_is_withdrawn() {
    let gateway = Gateway::start();
    gateway.archive.produce(PUBLIC, 5);
    gateway.archive.produce(PERSONAL, 5);
    let client = gateway.client("energy");
    let forms = [
        "/v1/points",
        "/v1/observations?format=senml",
        "/v1/observations?format=senml&order=newest",
        "/v1/observations?order=newest",
        "/v1/days/2026-06-01.csv",
        "/metrics",
    ];
    for path in forms {
        assert!(text(&client.get(path).await).contains(PERSONAL), "{path}");
    }
    gateway.consents.withdraw(withdrawn("energy")).expect("recorded");
    for path in forms {
        let answer = client.get(path).await;
        assert!(text(&answer).contains(PUBLIC) && !text(&answer).contains(PERSONAL), "{path}: {}", text(&answer));
    }
}

#[tokio::test]
async fn a_spent_budget_holds_back_readings_in_every_form_but_what_is_small() {
    let gateway = Gateway::with_budget_of(10_000_000);
    gateway.archive.produce(PUBLIC, 10);
    gateway.archive.produce(INTERNAL, 10);
    gateway.traffic.counters().sent(10_000_000);
    let client = gateway.client("agglo");
    for path in ["/v1/observations?format=senml", "/v1/observations?format=senml&from=1", "/v1/days/2026-06-01.csv"] {
        let refused = client.get(path).await;
        assert_eq!((refused.status.as_u16(), &refused.json()["error"]), (429, &json!("budget-spent")), "{path}");
        assert_eq!(refused.header("content-type"), Some("application/problem+json"));
        assert!(refused.header("retry-after").is_some(), "{path}");
    }
    for path in ["/v1/health", "/v1/points", "/v1/gaps", "/v1/days", "/v1/days/schema.json", "/v1/openapi.json"] {
        assert_eq!(client.get(path).await.status, 200, "{path}");
    }
    let alarms = client.get("/v1/observations?format=senml&order=newest").await;
    assert!(text(&alarms).contains(INTERNAL) && !text(&alarms).contains(PUBLIC), "{}", text(&alarms));
    let metrics = client.get("/metrics").await;
    assert!(text(&metrics).contains("\nclocher_link_budget_bytes 10000000\n"), "{}", text(&metrics));
    let used = text(&metrics).lines().find_map(|line| line.strip_prefix("clocher_link_month_bytes "));
    assert!(used.expect("told").parse::<u64>().expect("a number") > 10_000_000);
}

#[tokio::test]
async fn the_newest_as_senml_says_where_it_goes_on_and_where_it_is_as_rows() {
    let gateway = Gateway::start();
    gateway.archive.produce(PUBLIC, 10);
    gateway.archive.produce(INTERNAL, 10);
    let client = gateway.client("agglo");
    let links = |answer: &Answer| -> Vec<String> {
        answer.headers.get_all("link").iter().map(|link| link.to_str().expect("text").to_owned()).collect()
    };
    let first = client.get("/v1/observations?order=newest&limit=1&format=senml").await;
    assert_eq!(
        links(&first),
        [
            "</v1/observations?before=20&format=senml&limit=1&order=newest>; rel=\"next\"",
            "</v1/observations?format=rows&limit=1&order=newest>; rel=\"alternate\"; type=\"application/x-ndjson\"",
        ]
    );
    let rest = client.get("/v1/observations?before=20&format=senml&limit=1&order=newest").await;
    assert!(text(&rest).contains(PUBLIC) && links(&rest).iter().all(|link| !link.contains("next")), "{}", text(&rest));
    let accesses = gateway.accesses();
    let kinds: Vec<_> = accesses.iter().map(|access| (access["newest"] == true, access["again"] == true)).collect();
    assert_eq!(kinds, [(true, true)], "one record, and not of a cursor that moves");
}

/// The readings and the losses an answer tells.
fn counted(answer: &Answer) -> (u64, u64) {
    let count = |value: &Value| value.as_f64().expect("a number") as u64;
    if answer.header("content-type") == Some("application/senml+json") {
        let pack = answer.json();
        let records = pack.as_array().expect("an array");
        let lost = records.iter().filter(|record| record["n"].as_str().is_some_and(|name| name.starts_with(":gap")));
        let readings = records.iter().filter(|record| record["n"].as_str().is_some_and(|name| name == PUBLIC));
        return (readings.count() as u64, lost.map(|record| count(&record["v"])).sum());
    }
    let lines = answer.lines();
    let readings = lines.iter().map(|line| if line["seq"].is_array() { count(&line["count"]) } else { 1 });
    let readings = readings.zip(&lines).filter(|(_, line)| !line["seq"].is_null()).map(|(count, _)| count).sum();
    (readings, lines.iter().filter(|line| line["gap"].is_object()).map(|line| count(&line["gap"]["count"])).sum())
}

#[tokio::test]
async fn losses_among_other_readings_add_up_in_every_form_however_pages_are_cut() {
    let gateway = Gateway::with_pages_of(4 << 10);
    gateway.archive.produce(PUBLIC, 300);
    gateway.archive.thin((1..=300).filter(|seq| seq % 3 == 1 || (100..140).contains(seq)));
    let lost = (1..=300_u64).filter(|seq| seq % 3 == 1 || (100..140).contains(seq)).count() as u64;
    let client = gateway.client("agglo");
    let ways = ["from=2026-06-01T00:00:00Z&", "from=1&to=300&", ""];
    for (format, way, limit) in ["rows", "columns", "senml"]
        .into_iter()
        .flat_map(|format| ways.into_iter().flat_map(move |way| [60, 1_000].map(|limit| (format, way, limit))))
    {
        let (mut path, mut told) = (format!("/v1/observations?{way}format={format}&limit={limit}"), (0, 0));
        for _ in 0..40 {
            let page = client.get(&path).await;
            let (readings, losses) = counted(&page);
            told = (told.0 + readings, told.1 + losses);
            let next = page.header("link").filter(|link| link.contains("rel=\"next\"")).map(ToOwned::to_owned);
            let ended = if format == "senml" {
                page.json().as_array().expect("an array").last().expect("a record")["vb"] == true
            } else {
                page.lines().last().expect("a line")["complete"] == true
            };
            if ended {
                break;
            }
            next.expect("more").trim_start_matches('<').split('>').next().expect("a target").clone_into(&mut path);
        }
        assert_eq!(told, (300 - lost, lost), "{format} {way} {limit}");
    }
    let day = client.get("/v1/days/2026-06-01.csv").await;
    let lines: Vec<_> = text(&day).split("\r\n").skip(1).filter(|line| !line.is_empty()).collect();
    let fields = |line: &str| line.split(',').map(ToOwned::to_owned).collect::<Vec<_>>();
    let gaps: Vec<_> = lines.iter().map(|line| fields(line)).filter(|line| line[6] == "lost").collect();
    assert_eq!(gaps.iter().map(|gap| gap[8].parse::<u64>().expect("a number")).sum::<u64>(), lost);
    assert_eq!((gaps[0][0].as_str(), gaps[0][9].as_str(), lines.len() as u64), ("1", "298", 300 - lost + 1));
    let last =
        |line: &&str| fields(line)[if fields(line)[6] == "lost" { 9 } else { 0 }].parse::<u64>().expect("a number");
    assert!(lines.iter().map(last).is_sorted(), "in order of the last number told of");
}

// ---- what is refused, and the document --------------------------------------------------------------------------------

#[tokio::test]
async fn a_refusal_names_the_parameter_and_tells_form_from_sense() {
    let gateway = Gateway::start();
    let client = gateway.client("agglo");
    for (query, status, told) in [
        ("limit=0", 400, "`limit` is \"0\", but must be a whole number, 1 at least"),
        ("limit=1&limit=2", 400, "`limit` is there twice"),
        ("afer=x", 400, "`afer` is not one of: after, limit"),
        ("from=9&to=5", 422, "`from` is after `to`"),
        ("after=AAAAAAAAAAAAAAAAAAAAAAAAAAA", 422, "not a cursor"),
    ] {
        let refused = client.get(&format!("/v1/observations?{query}")).await;
        let body = refused.json();
        assert_eq!((refused.status.as_u16(), &body["status"]), (status, &json!(status)), "{query}: {body}");
        assert!(body["detail"].as_str().expect("a text").contains(told), "{query}: {body}");
    }
    assert_eq!(client.get("/v1/observations?limit=0").await.json()["parameter"], "limit");
}

#[tokio::test]
async fn the_document_is_served_and_each_path_and_parameter_of_it_is_there() {
    let gateway = Gateway::start();
    gateway.archive.produce(PUBLIC, 10);
    let client = gateway.client("agglo");
    let document = client.get("/v1/openapi.json").await.json();
    assert_eq!(document["openapi"], "3.1.0");
    let paths = document["paths"].as_object().expect("paths");
    assert!(paths.len() >= 9);
    for (path, item) in paths {
        let path = path.replace("{day}", "2026-06-01");
        let answer = client.get(&path).await;
        assert_eq!(answer.status, 200, "{path}: {}", text(&answer));
        let kind = answer.header("content-type").expect("a type");
        assert!(
            item["get"]["responses"]["200"]["content"].as_object().expect("types").contains_key(kind),
            "{path}: {kind}"
        );
        for parameter in item["get"]["parameters"].as_array().expect("parameters").iter().filter(|p| p["in"] == "query")
        {
            let name = parameter["name"].as_str().expect("a name");
            let refused = client.get(&format!("{path}?{name}=%C3%A9")).await;
            assert!(text(&refused).contains(&format!("`{name}` is \\\"é\\\"")), "{name}: {}", text(&refused));
        }
    }
    let refused = client.get("/nowhere").await.json();
    assert!(paths.keys().all(|path| refused["detail"].as_str().expect("a text").contains(path.as_str())));
}

impl Client {
    /// Asks, and leaves the body to be read.
    async fn begin(&self, path: &str) -> hyper::body::Incoming {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(16_384).expect("set");
        let stream = socket.connect(self.address).await.expect("connected");
        let name = rustls::pki_types::ServerName::try_from("localhost").expect("a name");
        let stream = self.tls.connect(name, stream).await.expect("a handshake");
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
        tokio::spawn(connection);
        let request = Request::get(path).header("host", "localhost").body(Empty::<Bytes>::new()).expect("a request");
        let response = sender.send_request(request).await.expect("an answer");
        assert_eq!(response.status(), 200);
        response.into_body()
    }
}
