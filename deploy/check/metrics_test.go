package check

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// fromPrometheus are what no worker says of itself.
var fromPrometheus = map[string][]string{"up": {}}

// byPrometheus are the labels that it adds to whatever it reads.
var byPrometheus = []string{"job", "instance"}

// said is the metrics of a real fleet, by name, each with its labels.
func said(t *testing.T) map[string][]string {
	t.Helper()
	dir := t.TempDir()
	program := filepath.Join(dir, "lockstep")
	build := exec.Command("go", "build", "-o", program, "./cmd/lockstep")
	build.Dir = filepath.Join(deploy, "..")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the program: %v\n%s", err, out)
	}
	demo := exec.Command(program, "demo", "--port", "0", "--http", "127.0.0.1:0", "--store", filepath.Join(dir, "store"))
	demo.Env = append(os.Environ(), "HOME="+dir, "XDG_CONFIG_HOME="+dir)
	out, err := demo.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	demo.Stderr = demo.Stdout
	if err := demo.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		demo.Process.Kill()
		demo.Wait()
	})
	door := make(chan string, 1)
	go func() {
		found := regexp.MustCompile(`http://127\.0\.0\.1:\d+`)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if url := found.FindString(lines.Text()); url != "" {
				select {
				case door <- url:
				default:
				}
			}
		}
		io.Copy(io.Discard, out)
	}()
	var url string
	select {
	case url = <-door:
	case <-time.After(time.Minute):
		t.Fatal("the demo opens no HTTP door")
	}
	body := `{"island":"Biscoe","bill_length_mm":46.1,"bill_depth_mm":13.2,"flipper_length_mm":211,"body_mass_g":4500,"sex":"female"}`
	metrics := map[string][]string{}
	// Some are there only once replicas have heard of each other.
	for deadline := time.Now().Add(time.Minute); metrics["lockstep_fleet_replicas"] == nil || metrics["lockstep_request_duration_seconds_bucket"] == nil; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the fleet does not say all that it should: %d metrics", len(metrics))
		}
		if answer, err := http.Post(url+"/predict", "application/json", strings.NewReader(body)); err == nil {
			answer.Body.Close()
		}
		answer, err := http.Get(url + "/metrics")
		if err != nil {
			continue
		}
		parser := expfmt.NewTextParser(model.UTF8Validation)
		families, err := parser.TextToMetricFamilies(answer.Body)
		answer.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		for name, family := range families { // order: a map is made
			var have []string
			for _, m := range family.Metric {
				for _, l := range m.Label {
					have = append(have, l.GetName())
				}
				if m.Histogram != nil && len(m.Histogram.Bucket) > 0 {
					metrics[name+"_bucket"] = append(slices.Clone(have), "le")
					metrics[name+"_count"], metrics[name+"_sum"] = have, have
				}
			}
			metrics[name] = have
			if have == nil {
				metrics[name] = []string{}
			}
		}
	}
	return metrics
}

// queries are all expressions of alerts and dashboard, by where they stand.
func queries(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, a := range alerts(t) {
		all["alert "+a.Alert] = a.Expr
	}
	d := readDashboard(t)
	grafana := strings.NewReplacer("$__rate_interval", "5m")
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			all[fmt.Sprintf("panel %q %s", p.Title, target.RefID)] = grafana.Replace(target.Expr)
		}
	}
	values := regexp.MustCompile(`^label_values\((.*), (\w+)\)$`)
	for _, v := range d.Templating.List {
		var q struct {
			Query string `json:"query"`
		}
		if v.Type != "query" {
			continue
		}
		if err := json.Unmarshal(v.Query, &q); err != nil {
			t.Fatal(err)
		}
		parts := values.FindStringSubmatch(q.Query)
		if parts == nil {
			t.Fatalf("variable %s: %q is no label_values", v.Name, q.Query)
		}
		all["variable "+v.Name] = fmt.Sprintf("count by (%s) (%s)", parts[2], parts[1])
	}
	return all
}

// TestMetricNames: every metric and label that an alert or the dashboard uses
// is one that a worker has.
func TestMetricNames(t *testing.T) {
	metrics := said(t)
	for name, have := range fromPrometheus { // order: a map is made
		metrics[name] = have
	}
	used := map[string]bool{}
	for where, text := range queries(t) { // order: each is looked at by itself
		expr, err := parser.NewParser(parser.Options{}).ParseExpr(text)
		if err != nil {
			t.Errorf("%s: %v", where, err)
			continue
		}
		var grouped, have []string
		parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
			switch n := node.(type) {
			case *parser.VectorSelector:
				known, ok := metrics[n.Name]
				if !ok {
					t.Errorf("%s: no worker has the metric %s", where, n.Name)
				}
				used[n.Name] = true
				have = append(have, known...)
				for _, m := range n.LabelMatchers {
					if m.Name != labels.MetricName && ok && !slices.Contains(slices.Concat(known, byPrometheus), m.Name) {
						t.Errorf("%s: %s has no label %s", where, n.Name, m.Name)
					}
				}
			case *parser.AggregateExpr:
				grouped = append(grouped, n.Grouping...)
			}
			return nil
		})
		for _, label := range grouped {
			if !slices.Contains(slices.Concat(have, byPrometheus), label) {
				t.Errorf("%s: groups by %s, which none of its metrics has", where, label)
			}
		}
	}
	for name := range metrics { // order: each is a line
		base := strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(name, "_bucket"), "_count"), "_sum")
		if strings.HasPrefix(name, "lockstep_") && !used[name] && !used[base+"_bucket"] {
			t.Logf("nobody looks at %s", name)
		}
	}
}
