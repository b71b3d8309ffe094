use super::*;
use proptest::prelude::*;
use serde_json::json;

fn data() -> Value {
    json!({
        "Id": "0123456789abcdef",
        "Names": ["a:1", "b:2"],
        "Size": 42,
        "Half": 0.5,
        "Empty": [],
        "Nothing": null,
        "Up": true,
        "Config": {"Labels": {"org.x": "1", "team": "red"}, "User": ""},
        "History": [{"created": "now", "created_by": "sh"}],
        "Mounts": [{"Source": "/a", "RW": true}, {"Source": "/b", "RW": false}],
    })
}

fn run(template: &str) -> Result<String, String> {
    Template::parse(template)?.execute(&data())
}

#[track_caller]
fn gives(template: &str, want: &str) {
    assert_eq!(run(template).as_deref(), Ok(want), "{template}");
}

#[test]
fn fields_and_values_print_as_in_go() {
    gives("{{.Id}} {{ .ID }}", "0123456789abcdef 0123456789abcdef");
    gives("{{.Names}} {{.Size}} {{.Half}} {{.Up}}", "[a:1 b:2] 42 0.5 true");
    gives("{{.Config.Labels}}", "map[org.x:1 team:red]");
    gives("{{.Config.Labels.team}} {{.Config.Labels.nobody}} {{.Nothing}}", "red <no value> <no value>");
    gives("{{(index .Mounts 1).Source}} {{$.Size}}", "/b 42");
    gives("{{range .History}}{{.CreatedBy}} {{.Created}}{{end}}", "sh now");
    gives("no action }} {", "no action }} {");
}

#[test]
fn blocks_choose_and_repeat() {
    gives("{{if .Up}}up{{else}}down{{end}} {{if .Config.User}}u{{end}}", "up ");
    gives("{{if eq .Size 1}}a{{else if gt .Size 40}}b{{else}}c{{end}}", "b");
    gives("{{range .Mounts}}{{.Source}}={{.RW}} {{end}}", "/a=true /b=false ");
    gives("{{range $i, $n := .Names}}{{if $i}},{{end}}{{$n}}{{end}}", "a:1,b:2");
    gives("{{range $k, $v := .Config.Labels}}{{$k}}={{$v}};{{end}}", "org.x=1;team=red;");
    gives("{{range .Empty}}x{{else}}none{{end}} {{range .Nothing}}x{{end}}", "none ");
    gives("{{range .Names}}{{if eq . \"b:2\"}}{{break}}{{end}}{{.}}{{end}}", "a:1");
    gives("{{range .Names}}{{if eq . \"a:1\"}}{{continue}}{{end}}{{.}}{{end}}", "b:2");
    gives("{{with .Config}}{{.User}}|{{$.Size}}{{end}}{{with .Empty}}x{{else}}e{{end}}", "|42e");
}

#[test]
fn variables_live_in_their_block() {
    gives("{{$x := 1}}{{if true}}{{$x = 2}}{{$y := 3}}{{$y}}{{end}}{{$x}}", "32");
    assert!(run("{{if true}}{{$y := 3}}{{end}}{{$y}}").unwrap_err().contains("undefined variable $y"));
    assert!(run("{{$z = 3}}").is_err());
}

#[test]
fn blanks_and_comments_go() {
    gives("a \n{{- .Size -}} \n b", "a42b");
    gives("a {{/* }} nothing */}}b {{- /* x */ -}} c", "a bc");
}

#[test]
fn functions_do_as_in_go_and_podman() {
    gives("{{json .Names}} {{.Config | json}}", r#"["a:1","b:2"] {"Labels":{"org.x":"1","team":"red"},"User":""}"#);
    gives("{{json .}}", &data().to_string());
    gives("{{join .Names \", \"}} {{len .Names}} {{len .Empty}}", "a:1, b:2 2 0");
    gives("{{upper \"aß\"}} {{lower `AB`}} {{title \"two words\"}}", "ASS ab Two Words");
    gives("{{index (split \"a/b\" \"/\") 1}} {{truncate .Id 4}} {{slice .Id 0 3}}", "b 0123 012");
    gives("[{{pad \"x\" 1 2}}] [{{pad \"\" 1 2}}]", "[ x  ] []");
    gives(
        "{{printf \"%-4s|%4d|%04d|%q|%x|%.1f|%v%%\" \"a\" 7 -7 \"q\" 255 .Half .Up}}",
        "a   |   7|-007|\"q\"|ff|0.5|true%",
    );
    gives(
        "{{print 1 2 \"a\" \"b\" 3}} {{println 1 \"x\"}}",
        "1 2ab3 1 x
",
    );
    gives("{{and 1 0}} {{or 0 \"x\"}} {{not .Empty}}", "0 x true");
    gives("{{eq .Size 1 42}} {{ne \"a\" \"b\"}} {{lt 1 2.5}} {{ge 2 3}}", "true true true false");
    gives("{{index .Config.Labels \"org.x\"}} {{index .Config.Labels \"none\"}}", "1 <no value>");
}

#[test]
fn mistakes_are_named() {
    for (template, told) in [
        ("{{.Nosize}}", "can't evaluate field Nosize: there are Config, Empty"),
        ("{{.Config.Nope}}", "field Nope"),
        ("{{.Size.X}}", "field X in a number"),
        ("{{.Nothing.X}}", "nil data"),
        ("{{.Id", "not closed"),
        ("{{}}", "a command is missing"),
        ("{{if .Up}}x", "lacks its {{end}}"),
        ("{{end}}", "unexpected {{end}}"),
        ("{{nosuch .Id}}", "function \"nosuch\" not defined"),
        ("{{.Id | .Size}}", "only a function"),
        ("{{upper 1}}", "expected a string, got a number"),
        ("{{upper}}", "wrong number of arguments"),
        ("{{index .Names 7}}", "out of range"),
        ("{{eq 1 \"a\"}}", "cannot be compared"),
        ("{{printf \"%d\" \"a\"}}", "cannot print"),
        ("{{printf \"%d\"}}", "no argument"),
        ("{{range .Size}}{{end}}", "can't iterate"),
        ("{{template \"x\"}}", "does not know"),
        ("{{break}}", "outside"),
        ("{{\"a}}", "not closed"),
        ("{{(.Id}}", "not closed"),
        ("{{.Id)}}", "not opened"),
        ("{{/* x}}", "not closed"),
        ("{{#}}", "no meaning"),
    ] {
        let error = run(template).unwrap_err();
        assert!(error.contains(told), "{template}: {error}");
    }
    assert!(run(&"{{if 1}}".repeat(10_000)).unwrap_err().contains("deeply"));
    assert!(run(&format!("{{{{{}", "(".repeat(10_000))).is_err());
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in r#"([{}|$().:=,"` \-]|\{\{|\}\}|if|range|end|else|with|\.Names|\.Id|printf|index|\$x|[0-9]|%[0-9a-z]){0,24}"#) {
        drop(run(&text));
    }

    #[test]
    fn text_without_actions_is_itself(text in "[^{]{0,40}") {
        prop_assert_eq!(run(&text), Ok(text));
    }

    #[test]
    fn strings_come_out_as_they_went_in(text in "\\PC{0,20}") {
        let quoted = Value::String(text.clone()).to_string();
        let data = json!({"X": text});
        let template = Template::parse("{{.X}}").unwrap();
        prop_assert_eq!(template.execute(&data).unwrap(), text.clone());
        let template = Template::parse("{{json .X}}").unwrap();
        prop_assert_eq!(template.execute(&data).unwrap(), quoted);
    }
}
