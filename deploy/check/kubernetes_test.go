package check

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	apps "k8s.io/api/apps/v1"
	batch "k8s.io/api/batch/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	k8syaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// kinds are the types of the API server itself.
var kinds = map[string]func() any{
	"v1 Namespace":                       func() any { return new(core.Namespace) },
	"v1 Service":                         func() any { return new(core.Service) },
	"apps/v1 StatefulSet":                func() any { return new(apps.StatefulSet) },
	"apps/v1 Deployment":                 func() any { return new(apps.Deployment) },
	"batch/v1 Job":                       func() any { return new(batch.Job) },
	"policy/v1 PodDisruptionBudget":      func() any { return new(policy.PodDisruptionBudget) },
	"networking.k8s.io/v1 NetworkPolicy": func() any { return new(networking.NetworkPolicy) },
}

// kustomization is kustomization.yaml, as far as it is used.
type kustomization struct {
	meta.TypeMeta      `json:",inline"`
	Namespace          string   `json:"namespace"`
	Resources          []string `json:"resources"`
	ConfigMapGenerator []struct {
		Name  string   `json:"name"`
		Files []string `json:"files"`
	} `json:"configMapGenerator"`
	Images []struct {
		Name    string `json:"name"`
		NewName string `json:"newName"`
		NewTag  string `json:"newTag"`
	} `json:"images"`
}

func readKustomization(t *testing.T) (k kustomization) {
	t.Helper()
	if err := yaml.UnmarshalStrict(read(t, "kustomization.yaml"), &k); err != nil {
		t.Fatal(err)
	}
	return k
}

// manifests decodes all of them, strictly.
func manifests(t *testing.T) (all []any) {
	t.Helper()
	for _, file := range readKustomization(t).Resources {
		documents := k8syaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(read(t, file))))
		for {
			document, err := documents.Read()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			var of meta.TypeMeta
			if err := yaml.Unmarshal(document, &of); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			make := kinds[of.APIVersion+" "+of.Kind]
			if make == nil {
				t.Fatalf("%s: unknown kind %s %s", file, of.APIVersion, of.Kind)
			}
			object := make()
			if err := yaml.UnmarshalStrict(document, object); err != nil {
				t.Errorf("%s, %s: %v", file, of.Kind, err)
			}
			all = append(all, object)
		}
	}
	return all
}

// pods are the pod templates, by the name of what makes them.
func pods(all []any) map[string]core.PodTemplateSpec {
	out := map[string]core.PodTemplateSpec{}
	for _, object := range all {
		switch o := object.(type) {
		case *apps.StatefulSet:
			out[o.Name] = o.Spec.Template
		case *apps.Deployment:
			out[o.Name] = o.Spec.Template
		case *batch.Job:
			out[o.Name] = o.Spec.Template
		}
	}
	return out
}

// TestManifests: they decode strictly, pods are as tight as a restricted
// namespace wants, and what refers to something finds it.
func TestManifests(t *testing.T) {
	all := manifests(t)
	files, err := filepath.Glob(filepath.Join(deploy, "kubernetes", "*.yaml"))
	if err != nil || len(files) != len(readKustomization(t).Resources) {
		t.Errorf("%d manifests, %d of them in kustomization.yaml: %v", len(files), len(readKustomization(t).Resources), err)
	}
	templates := pods(all)
	if len(templates) != 3 {
		t.Errorf("%d kinds of pods", len(templates))
	}
	for name, p := range templates { // order: each is looked at by itself
		s := p.Spec.SecurityContext
		if s == nil || s.RunAsNonRoot == nil || !*s.RunAsNonRoot || s.SeccompProfile == nil ||
			s.SeccompProfile.Type != core.SeccompProfileTypeRuntimeDefault {
			t.Errorf("%s: the pod may be root, or make any system call", name)
		}
		if p.Spec.AutomountServiceAccountToken == nil || *p.Spec.AutomountServiceAccountToken {
			t.Errorf("%s: the pod has a token for the API server", name)
		}
		for _, c := range p.Spec.Containers {
			s := c.SecurityContext
			if s == nil || s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation ||
				s.ReadOnlyRootFilesystem == nil ||
				!*s.ReadOnlyRootFilesystem ||
				s.Capabilities == nil ||
				!slices.Contains(s.Capabilities.Drop, "ALL") {
				t.Errorf("%s: the container %s is not tight", name, c.Name)
			}
			if c.Resources.Requests.Cpu().IsZero() || c.Resources.Requests.Memory().IsZero() ||
				c.Resources.Limits.Memory().IsZero() {
				t.Errorf("%s: the container %s has no resources", name, c.Name)
			}
			volumes := map[string]bool{}
			for _, v := range p.Spec.Volumes {
				volumes[v.Name] = true
			}
			for _, o := range all {
				if set, ok := o.(*apps.StatefulSet); ok && set.Name == name {
					for _, claim := range set.Spec.VolumeClaimTemplates {
						volumes[claim.Name] = true
					}
				}
			}
			ports := map[string]bool{}
			for _, port := range c.Ports {
				ports[port.Name] = true
			}
			for _, m := range c.VolumeMounts {
				if !volumes[m.Name] {
					t.Errorf("%s: no volume %s", name, m.Name)
				}
			}
			for _, probe := range []*core.Probe{c.StartupProbe, c.LivenessProbe, c.ReadinessProbe} {
				if probe != nil && probe.HTTPGet != nil && !ports[probe.HTTPGet.Port.String()] {
					t.Errorf("%s: a probe of no port, %s", name, probe.HTTPGet.Port.String())
				}
			}
			if _, once := jobs(all)[name]; !once && (c.LivenessProbe == nil || c.ReadinessProbe == nil) {
				t.Errorf("%s: the container %s has no probes", name, c.Name)
			}
		}
	}
	for _, object := range all {
		switch o := object.(type) {
		case *core.Service:
			meets(t, "service "+o.Name, o.Spec.Selector, templates)
		case *policy.PodDisruptionBudget:
			meets(t, "budget "+o.Name, o.Spec.Selector.MatchLabels, templates)
		case *networking.NetworkPolicy:
			meets(t, "network policy "+o.Name, o.Spec.PodSelector.MatchLabels, templates)
		case *apps.StatefulSet:
			meets(t, "servers", o.Spec.Selector.MatchLabels, templates)
			if o.Spec.ServiceName != "nats" || *o.Spec.Replicas != 3 || len(o.Spec.Template.Spec.TopologySpreadConstraints) == 0 || len(o.Spec.VolumeClaimTemplates) == 0 {
				t.Errorf("the servers are not three with disks of their own, spread")
			}
		case *apps.Deployment:
			meets(t, "workers", o.Spec.Selector.MatchLabels, templates)
			if len(o.Spec.Template.Spec.TopologySpreadConstraints) == 0 || o.Spec.Strategy.RollingUpdate.MaxUnavailable.IntValue() != 0 {
				t.Errorf("workers are not spread, or are replaced before the next is ready")
			}
		}
	}
	// The job's pods must not be counted as workers.
	for _, object := range all {
		if b, ok := object.(*policy.PodDisruptionBudget); ok &&
			covers(b.Spec.Selector.MatchLabels, templates["lockstep-init"].Labels) {
			t.Errorf("the budget %s counts the job's pods", b.Name)
		}
	}
}

func jobs(all []any) map[string]bool {
	out := map[string]bool{}
	for _, object := range all {
		if j, ok := object.(*batch.Job); ok {
			out[j.Name] = true
		}
	}
	return out
}

func covers(selector, labels map[string]string) bool {
	for k, v := range selector { // order: all must hold
		if labels[k] != v {
			return false
		}
	}
	return true
}

func meets(t *testing.T, what string, selector map[string]string, templates map[string]core.PodTemplateSpec) {
	t.Helper()
	for _, p := range templates { // order: one that fits is enough
		if covers(selector, p.Labels) {
			return
		}
	}
	t.Errorf("%s selects no pod", what)
}

// TestConfigFiles: the generated config map has the files that the servers
// mount, and they are there.
func TestConfigFiles(t *testing.T) {
	k := readKustomization(t)
	for _, g := range k.ConfigMapGenerator {
		for _, file := range g.Files {
			if _, err := os.Stat(filepath.Join(deploy, file)); err != nil {
				t.Error(err)
			}
		}
	}
	secrets := map[string]bool{}
	for _, p := range pods(manifests(t)) { // order: a set is made
		for _, v := range p.Spec.Volumes {
			switch {
			case v.Secret != nil:
				secrets[v.Secret.SecretName] = true
			case v.Projected != nil:
				for _, s := range v.Projected.Sources {
					if s.Secret != nil {
						secrets[s.Secret.Name] = true
					}
					if s.ConfigMap != nil && s.ConfigMap.Name != k.ConfigMapGenerator[0].Name {
						t.Errorf("there is no config map %s", s.ConfigMap.Name)
					}
				}
			}
		}
	}
	runbook := string(read(t, "README.md"))
	for name := range secrets { // order: each is looked at by itself
		if !strings.Contains(runbook, "create secret generic "+name+" ") {
			t.Errorf("README.md does not say how to make the secret %s", name)
		}
	}
}

// TestServersEnvironment: whatever the servers' config takes from the
// environment is there, in Compose, Kubernetes and the runbook.
func TestServersEnvironment(t *testing.T) {
	var text string
	for _, file := range readKustomization(t).ConfigMapGenerator[0].Files {
		text += string(read(t, file))
	}
	project, err := compose(t, composeEnv)
	if err != nil {
		t.Fatal(err)
	}
	inPods := map[string]bool{}
	for _, v := range pods(manifests(t))["nats"].Spec.Containers[0].Env {
		inPods[v.Name] = true
	}
	runbook := string(read(t, "README.md"))
	names := regexp.MustCompile(`: \$([A-Z_]+)`).FindAllStringSubmatch(text, -1)
	if len(names) < 2 {
		t.Fatalf("the config takes %v from its environment", names)
	}
	for _, found := range names {
		name := found[1]
		if project.Services["nats-0"].Environment[name] == nil || project.Services["nats-2"].Environment[name] == nil ||
			!inPods[name] ||
			!strings.Contains(runbook, name+"=") {
			t.Errorf("the servers' %s is not set everywhere", name)
		}
	}
}

// TestWorkersDrain: a worker that is stopped goes on answering for its drain
// delay, in Compose, Kubernetes and systemd alike, and has the time to answer
// what it has accepted before it is killed.
func TestWorkersDrain(t *testing.T) {
	const accepted = 15 * time.Second // for what a worker has accepted, over HTTP and then over NATS
	check := func(where string, args []string, before, grace time.Duration) {
		t.Helper()
		line := strings.ReplaceAll(strings.Join(args, " "), "=", " ")
		found := regexp.MustCompile(`--drain-delay (\S+)`).FindStringSubmatch(line)
		if found == nil {
			t.Errorf("%s: the worker has no --drain-delay: %s", where, line)
			return
		}
		delay, err := time.ParseDuration(found[1])
		if want := before + delay + accepted; err != nil || delay < 5*time.Second || grace < want {
			t.Errorf("%s: got a delay of %s (%v) and %s until it is killed, want 5s and %s", where, delay, err, grace, want)
		}
	}
	pod := pods(manifests(t))["lockstep"].Spec
	worker := pod.Containers[0]
	if worker.Lifecycle == nil || worker.Lifecycle.PreStop == nil || worker.Lifecycle.PreStop.Sleep == nil {
		t.Fatal("Kubernetes: the worker has no preStop")
	}
	sleep := time.Duration(worker.Lifecycle.PreStop.Sleep.Seconds) * time.Second
	check("Kubernetes", worker.Args, sleep, time.Duration(*pod.TerminationGracePeriodSeconds)*time.Second)
	if sleep < 5*time.Second {
		t.Errorf("Kubernetes: got a preStop of %s, want 5s", sleep)
	}
	project, err := compose(t, composeEnv)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"worker-0", "worker-1", "worker-2"} {
		s := project.Services[name]
		check("Compose, "+name, s.Command, 0, time.Duration(*s.StopGracePeriod))
	}
	unit := string(read(t, "systemd", "lockstep-worker@.service"))
	value := func(name string) string {
		found := regexp.MustCompile(`\b` + name + `=(\S+)`).FindStringSubmatch(unit)
		if found == nil {
			t.Fatalf("systemd: no %s", name)
		}
		return found[1]
	}
	seconds, err := strconv.Atoi(value("TimeoutStopSec"))
	if err != nil {
		t.Fatal(err)
	}
	args := strings.Fields(strings.ReplaceAll(unit, "${DRAIN_DELAY}", value("DRAIN_DELAY")))
	check("systemd", args, 0, time.Duration(seconds)*time.Second)
}
