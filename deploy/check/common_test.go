// Package check holds what is in deploy to what those who read it accept:
// Compose, Kubernetes, Prometheus and Grafana, each by its own Go types, and
// the names of metrics by what a worker says.
package check

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

const deploy = ".."

func read(t *testing.T, path ...string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(append([]string{deploy}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// ruleFile is alerts.yml. promtool checks it; here it is only read.
type ruleFile struct {
	Groups []struct {
		Name  string `json:"name"`
		Rules []rule `json:"rules"`
	} `json:"groups"`
}

type rule struct {
	Alert       string            `json:"alert"`
	Expr        string            `json:"expr"`
	For         string            `json:"for"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
}

func alerts(t *testing.T) (rules []rule) {
	t.Helper()
	var file ruleFile
	if err := yaml.UnmarshalStrict(read(t, "prometheus", "alerts.yml"), &file); err != nil {
		t.Fatal(err)
	}
	for _, g := range file.Groups {
		rules = append(rules, g.Rules...)
	}
	if len(rules) < 10 {
		t.Fatalf("%d alerts", len(rules))
	}
	return rules
}

// dashboard is the part of Grafana's that has queries in it.
type dashboard struct {
	UID           string  `json:"uid"`
	Title         string  `json:"title"`
	SchemaVersion int     `json:"schemaVersion"`
	Panels        []panel `json:"panels"`
	Templating    struct {
		List []struct {
			Name, Type string
			Query      json.RawMessage `json:"query"`
		} `json:"list"`
	} `json:"templating"`
}

type panel struct {
	ID          int                            `json:"id"`
	Type        string                         `json:"type"`
	Title       string                         `json:"title"`
	GridPos     struct{ X, Y, W, H int }       `json:"gridPos"`
	Targets     []struct{ Expr, RefID string } `json:"targets"`
	FieldConfig struct {
		Defaults struct {
			Unit string `json:"unit"`
		} `json:"defaults"`
	} `json:"fieldConfig"`
}

func readDashboard(t *testing.T) (d dashboard) {
	t.Helper()
	if err := json.Unmarshal(read(t, "grafana", "dashboard.json"), &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// TestDashboard: panels have what Grafana wants, and none lies over another.
func TestDashboard(t *testing.T) {
	d := readDashboard(t)
	if d.UID == "" || d.Title == "" || d.SchemaVersion == 0 || len(d.Panels) < 15 {
		t.Errorf("uid %q, title %q, schema %d, %d panels", d.UID, d.Title, d.SchemaVersion, len(d.Panels))
	}
	ids := map[int]bool{}
	for i, a := range d.Panels {
		if a.Title == "" || ids[a.ID] || (len(a.Targets) == 0) != (a.Type == "row") {
			t.Errorf("panel %d %q, %s: %d targets, the id twice %t", a.ID, a.Title, a.Type, len(a.Targets), ids[a.ID])
		}
		ids[a.ID] = true
		if a.GridPos.X+a.GridPos.W > 24 {
			t.Errorf("panel %q ends at column %d of 24", a.Title, a.GridPos.X+a.GridPos.W)
		}
		for _, b := range d.Panels[i+1:] {
			p, q := a.GridPos, b.GridPos
			if p.X < q.X+q.W && q.X < p.X+p.W && p.Y < q.Y+q.H && q.Y < p.Y+p.H {
				t.Errorf("panels %q and %q lie over each other", a.Title, b.Title)
			}
		}
	}
}

// anchor is a heading's on a forge's page.
func anchor(heading string) string {
	return strings.ReplaceAll(strings.ToLower(strings.TrimSpace(strings.TrimLeft(heading, "#"))), " ", "-")
}

// TestRunbook: each alert leads to a section that names it and has a command
// to run.
func TestRunbook(t *testing.T) {
	sections := map[string]string{}
	for _, part := range strings.Split("\n"+string(read(t, "README.md")), "\n#")[1:] {
		heading, body, _ := strings.Cut(part, "\n")
		sections[anchor(heading)] = body
	}
	for _, a := range alerts(t) {
		page, name, ok := strings.Cut(a.Annotations["runbook"], "#")
		if !ok || page != "deploy/README.md" {
			t.Errorf("%s: the runbook is %q", a.Alert, a.Annotations["runbook"])
			continue
		}
		section, there := sections[name]
		if !there {
			t.Errorf("%s: deploy/README.md has no section %q", a.Alert, name)
		} else if !strings.Contains(section, "\n    ") && !strings.Contains(section, "`") {
			t.Errorf("%s: its section says no command", a.Alert)
		}
		if !strings.Contains(section, a.Alert) && name != strings.ToLower(a.Alert) {
			t.Errorf("%s: the section %q does not name it", a.Alert, name)
		}
		if a.Annotations["summary"] == "" || a.Annotations["description"] == "" {
			t.Errorf("%s has no summary or no description", a.Alert)
		}
		switch a.Labels["severity"] {
		case "critical", "warning", "info":
		default:
			t.Errorf("%s: severity %q", a.Alert, a.Labels["severity"])
		}
	}
}
