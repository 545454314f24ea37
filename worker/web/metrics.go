package web

import (
	"net/http"
	"runtime"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"lockstep/worker/fleet"
	"lockstep/worker/serve"
)

// metrics is what Prometheus reads of the door and its worker.
type metrics struct {
	server   *Server
	http     serve.Traffic
	registry *prometheus.Registry
	handler  http.Handler

	mu      sync.Mutex
	highest map[string]float64 // what each counter has shown, by its name and labels; guarded by mu
}

func newMetrics(s *Server) *metrics {
	m := &metrics{server: s, registry: prometheus.NewPedanticRegistry(), highest: map[string]float64{}}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "lockstep_build_info", Help: "1, and what the program was built from.",
		ConstLabels: prometheus.Labels{"version": s.cfg.Version, "goversion": runtime.Version()},
	})
	build.Set(1)
	m.registry.MustRegister(
		build, m, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	m.handler = promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{Registry: m.registry})
	return m
}

// Describe sends nothing: the labels model and replica are known only once
// there is a worker.
func (m *metrics) Describe(chan<- *prometheus.Desc) {}

// Collect sends what the worker says of itself now.
func (m *metrics) Collect(out chan<- prometheus.Metric) {
	served := m.server.worker.Load()
	if served == nil {
		return
	}
	c := &collection{
		metrics: m, out: out, labels: prometheus.Labels{"model": served.Spec().Name, "replica": served.Name()},
	}
	c.traffic("nats", served.server.Traffic())
	c.traffic("http", &m.http)
	c.gauge(
		"lockstep_http_requests_in_flight", "HTTP requests that are not answered yet.",
		float64(m.server.inFlight.Load()),
	)
	status := served.server.Status()
	c.replica(served, &status)
	c.fleet(served, &status)
	c.model(&status)
}

// rising is a counter's value, or the highest that it has shown if that is
// more. A total can shrink: a replica that replays its log from the start
// counts its events again from 0, and a total of the fleet can be restored
// from a backup. Prometheus would take that for a restart, and add the whole
// of it to every rate once more.
func (m *metrics) rising(v float64, name string, labels ...string) float64 {
	key := strings.Join(append([]string{name}, labels...), "\xff")
	m.mu.Lock()
	defer m.mu.Unlock()
	v = max(v, m.highest[key])
	m.highest[key] = v
	return v
}

// collection is one reading of all metrics.
type collection struct {
	*metrics
	out    chan<- prometheus.Metric
	labels prometheus.Labels
}

func (c *collection) desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, c.labels)
}

func (c *collection) gauge(name, help string, v float64) {
	c.out <- prometheus.MustNewConstMetric(c.desc(name, help), prometheus.GaugeValue, v)
}

func (c *collection) counter(name, help string, v float64) {
	c.out <- prometheus.MustNewConstMetric(c.desc(name, help), prometheus.CounterValue, c.rising(v, name))
}

// traffic is what came by a door.
func (c *collection) traffic(door string, t *serve.Traffic) {
	requests := c.desc("lockstep_requests_total", "Requests answered, by door, verb and code.", "door", "verb", "code")
	durations := c.desc("lockstep_request_duration_seconds", "From taking a request to its answer.", "door", "verb")
	for v, verb := range serve.Verbs {
		for i, code := range serve.Codes {
			if n := t.Answers(v, i); n > 0 || code == http.StatusOK {
				c.out <- prometheus.MustNewConstMetric(requests, prometheus.CounterValue, float64(n), door, verb, codeText(code))
			}
		}
		counts, sum := t.Latencies(v)
		total := uint64(0)
		buckets := make(map[float64]uint64, len(serve.Buckets))
		for i, bound := range serve.Buckets {
			total += counts[i]
			buckets[bound.Seconds()] = total
		}
		total += counts[len(serve.Buckets)]
		c.out <- prometheus.MustNewConstHistogram(durations, total, sum.Seconds(), buckets, door, verb)
	}
}

func codeText(code int) string {
	if code == 0 {
		return "other"
	}
	return string([]byte{byte('0' + code/100), byte('0' + code/10%10), byte('0' + code%10)})
}

// replica is how this one does.
func (c *collection) replica(served *served, s *fleet.Status) {
	c.counter(
		"lockstep_requests_dropped_total",
		"NATS requests that came faster than they were taken, and were lost unanswered.", float64(s.Dropped),
	)
	c.gauge("lockstep_requests_parked", "Requests that wait for a sequence.", float64(s.Parked))
	c.gauge("lockstep_log_sequence", "The sequence of the log that this replica has applied.", float64(s.Seq))
	c.gauge("lockstep_log_lag_messages", "Messages of the log that this replica has not applied yet.", float64(s.Lag))
	state := c.desc("lockstep_replica_state", "1 for the state that the replica is in.", "state")
	for _, name := range states {
		c.out <- prometheus.MustNewConstMetric(state, prometheus.GaugeValue, truth(s.State == name), name)
	}
	c.gauge("lockstep_replica_ready", "1 if the replica answers: /readyz is 200.", truth(c.server.unready() == ""))
	c.gauge(
		"lockstep_replica_quarantined",
		"1 if the replica is not to be trusted, and answers nothing but its status.",
		truth(s.State == fleet.Quarantined.String()),
	)
	c.gauge(
		"lockstep_replica_start_time_seconds", "When the worker started, in seconds since 1970.",
		float64(s.Started.Unix()),
	)
	c.counter("lockstep_replica_folds_total", "Times that the replica was folded anew.", float64(s.Folds))
	c.counter("lockstep_replica_healings_total", "Times that folding anew mended the replica.", float64(s.Healings))
	c.gauge(
		"lockstep_replica_advisory",
		"1 if there is something that an operator should know; the status says what.", truth(s.Advisory != ""),
	)
}

// fleet is what the replica sees of the others.
func (c *collection) fleet(served *served, s *fleet.Status) {
	fleet := served.Fleet()
	if fleet == nil {
		return // not known, which is not none
	}
	by := map[string]int{}
	ahead := uint64(0)
	for _, h := range fleet {
		by[h.State]++
		if h.Votes && h.Seq > s.Seq {
			ahead = max(ahead, min(h.Seq-s.Seq, s.Lag)) // no one is further than the log
		}
	}
	replicas := c.desc(
		"lockstep_fleet_replicas",
		"Live replicas of the same log that this one knows of, itself included, by state.", "state",
	)
	for _, name := range states {
		c.out <- prometheus.MustNewConstMetric(replicas, prometheus.GaugeValue, float64(by[name]), name)
	}
	c.gauge(
		"lockstep_fleet_ahead_messages", "How far the furthest replica that serves is ahead of this one.",
		float64(ahead),
	)
}

// model is what the model says of itself: the same on every replica at the
// same sequence.
func (c *collection) model(s *fleet.Status) {
	events := c.desc("lockstep_events_total", "Events of the log by what the fold did with them.", "verdict")
	for _, e := range []struct {
		verdict string
		n       uint64
	}{{"learned", s.Learned}, {"rejected", s.Rejected}, {"duplicate", s.Duplicates}} {
		c.out <- prometheus.MustNewConstMetric(events, prometheus.CounterValue,
			c.rising(float64(e.n), "lockstep_events_total", e.verdict), e.verdict)
	}
	c.counter("lockstep_fleet_predictions_total", "Predictions of the whole fleet.", float64(s.Predicted))
	c.counter(
		"lockstep_predictions_uncounted_total", "Predictions of this replica that are in no total.",
		float64(s.Uncounted),
	)
	c.counter(
		"lockstep_verdicts_unreported_total", "Rejections that were not written to the verdicts' stream.",
		float64(s.Unreported),
	)
	if s.Scores != nil {
		c.gauge(
			"lockstep_model_accuracy_ratio",
			"Share of the events that were predicted correctly before they were learned.", s.Accuracy,
		)
		c.gauge("lockstep_model_log_loss_nats", "Mean log-loss of the events before they were learned.", s.LogLoss)
		c.gauge("lockstep_model_macro_f1_ratio", "Mean F1 over the labels.", s.MacroF1)
		c.gauge("lockstep_model_rolling_accuracy_ratio", "Accuracy over the last events, at most 100.", s.Rolling.Accuracy)
		c.gauge("lockstep_model_rolling_log_loss_nats", "Mean log-loss of the last events, at most 100.", s.Rolling.LogLoss)
	}
	if s.Errors != nil {
		c.gauge("lockstep_model_mae", "Mean size of the error, in the label's unit, before the events were learned.", s.MAE)
		c.gauge("lockstep_model_rmse", "Root of the mean squared error, in the label's unit.", s.RMSE)
		c.gauge("lockstep_model_r2", "Share of the labels' variance that the predictions explain.", s.R2)
		c.gauge("lockstep_model_rolling_mae", "MAE over the last events, at most 100.", s.Rolling.MAE)
		c.gauge("lockstep_model_rolling_rmse", "RMSE over the last events, at most 100.", s.Rolling.RMSE)
	}
	c.gauge("lockstep_model_rolling_events", "How many events the rolling metrics cover.", float64(s.Rolling.Events))
}

var states = func() (names []string) {
	for s := fleet.Restoring; s <= fleet.Quarantined; s++ {
		names = append(names, s.String())
	}
	return names
}()

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
