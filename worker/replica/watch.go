package replica

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"lockstep/model"
	"lockstep/worker/fleet"
)

// What a watch remembers at most.
const (
	maxPoints    = 512  // of the history; beyond, every other one goes
	tailEvents   = 64   // verdicts
	tailChains   = 1024 // sequences whose chains are known
	watchedCells = 256  // labels whose confusions are looked at
)

// watch remembers what the fold did, for people who look on: its scores over
// the log, thinned so that they never grow; the last verdicts; and the last
// chains, which other replicas' are compared with. The replica's lock guards
// it. Of messages that are followed by many more it keeps nothing but scores.
type watch struct {
	lag *lag // of the replica

	sampled    *model.Model // whose events are counted
	stride     uint64       // events between points
	from       uint64       // what was learned up to there is known by its sum alone
	generation uint64       // changes when points do that were there before
	points     []Point

	said   [tailEvents]Said
	saying uint64 // how many were said
	chains [tailChains]chains
}

// Point is how good the model was after so many events, of which the last
// came at a sequence. Losses are means of -ln(probability given to the label).
// Where the label is a number, errors stand in their place: MAE for the
// accuracy, and RMSE for the loss.
type Point struct {
	Seq, Scored                  uint64
	Accuracy, LogLoss            float64 // of all events up to there
	RollingAccuracy, RollingLoss float64 // of the last, at most 100
}

// Said is what the fold said of an event.
type Said struct {
	Seq       uint64
	Index     int   // the event's place in a batch, -1 where it came alone
	Stored    int64 // when the server stored it, in nanoseconds since 1970
	Verdict   model.Verdict
	Label     string  // of the event
	Predicted string  // before it was learned
	Known     bool    // false: nothing was
	Proba     float64 // of what was predicted; 0 if not known
	Problem   string  // why it was rejected
}

type chains struct {
	seq        uint64
	log, state [32]byte
}

func newWatch(behind *lag) *watch {
	return &watch{lag: behind, stride: 1}
}

// see is told of each message, and when it was stored. It must cost the fold
// next to nothing.
func (h *watch) see(m *model.Model, result *model.Result, stored int64) {
	if h.sampled != m {
		h.attend(m)
	}
	if pending := h.lag.messages(); pending < tailChains {
		h.chains[result.Seq%tailChains] = chains{result.Seq, m.LogChain(), m.StateChain()}
		if pending < tailEvents {
			h.keep(result, stored)
		}
	}
}

// attend has the model call for a sample as its events are counted. All
// replicas take theirs after the same events.
func (h *watch) attend(m *model.Model) {
	h.sampled = m
	m.Metrics().Sample(h.after(m.Metrics().Scored()), func() (next uint64) {
		h.sample(m)
		return h.after(m.Metrics().Scored())
	})
}

// after is the number of events at which the next point is taken.
func (h *watch) after(scored uint64) uint64 { return (scored/h.stride + 1) * h.stride }

// sample adds a point, and thins them out where they are too many. One that
// a snapshot began with stays.
func (h *watch) sample(m *model.Model) {
	if len(h.points) >= maxPoints {
		h.stride *= 2
		h.generation++
		h.points = slices.DeleteFunc(h.points, func(p Point) bool {
			return p.Scored%h.stride != 0 && (h.from == 0 || p.Seq != h.from)
		})
	}
	if m.Metrics().Scored()%h.stride == 0 {
		h.points = append(h.points, point(m))
	}
}

func point(m *model.Model) Point {
	scores := m.Metrics()
	p := Point{Seq: m.Seq(), Scored: scores.Scored()}
	if scores.Kind() == model.Number {
		p.Accuracy, p.LogLoss = scores.MAE(), scores.RMSE()
		_, p.RollingAccuracy, p.RollingLoss = scores.RollingErrors()
		return p
	}
	p.Accuracy, p.LogLoss = scores.Accuracy(), scores.LogLoss()
	_, p.RollingAccuracy, p.RollingLoss = scores.Rolling()
	return p
}

// keep adds what was said of a message's last events.
func (h *watch) keep(result *model.Result, stored int64) {
	first := max(0, len(result.Outcomes)-tailEvents)
	for i := first; i < len(result.Outcomes); i++ {
		o := &result.Outcomes[i]
		s := Said{
			Seq: result.Seq, Index: -1, Stored: stored, Verdict: o.Verdict,
			Label: o.Answer.Label.String(), Known: o.Answer.Known,
		}
		if s.Known {
			s.Predicted = o.Answer.Predicted.String()
		}
		if result.Batch {
			s.Index = i
		}
		if s.Known && len(o.Proba) > 0 {
			s.Proba = slices.Max(o.Proba)
		}
		switch {
		case len(o.Problems) > 0:
			s.Problem = problemText(o.Problems)
		case o.Conflict:
			s.Problem = "its id belongs to another event"
		}
		h.said[h.saying%tailEvents] = s
		h.saying++
	}
}

func problemText(problems []model.Problem) string {
	text := problems[0].String()
	if n := len(problems) - 1; n > 0 {
		text += fmt.Sprintf(" (and %d more)", n)
	}
	return text
}

// reset begins again behind what a model holds.
func (h *watch) reset(m *model.Model) {
	*h = watch{lag: h.lag, stride: 1, from: m.Seq(), generation: h.generation + 1}
	h.attend(m)
	if m.Metrics().Scored() > 0 {
		h.points = append(h.points, point(m))
	}
}

// View is what there is to look at of a replica, all of one sequence.
type View struct {
	Points     []Point    // ascending, at most 513, the last of now; the caller's own
	From       uint64     // what was learned up to there has no points: a snapshot began with it
	Generation uint64     // while it is the same, points only came, but for the last
	Tail       []Said     // the newest last
	Labels     []string   // as learned
	Given      []uint64   // events by label; of the first 256 labels
	Confusion  [][]uint64 // by label, by predicted label + 1; of the same
	Values     [][]string // by input, what was seen of a category
}

// View is what there is to look at now.
func (r *Replica) View() View {
	r.core.mu.Lock()
	defer r.core.mu.Unlock()
	m, h := r.core.model, r.core.watch
	v := View{
		Points: append(make([]Point, 0, len(h.points)+1), h.points...), From: h.from,
		Generation: h.generation, Labels: m.Labels(),
	}
	if m.Metrics().Scored() > 0 {
		v.Points = append(v.Points, point(m))
	}
	for i := h.saying - min(h.saying, tailEvents); i < h.saying; i++ {
		v.Tail = append(v.Tail, h.said[i%tailEvents])
	}
	n := min(len(v.Labels), watchedCells)
	v.Given, v.Confusion = make([]uint64, n), make([][]uint64, n)
	for class := range n {
		row := make([]uint64, n+1)
		for predicted := range row {
			row[predicted] = m.Metrics().Confusion(class, predicted-1)
			v.Given[class] += row[predicted]
		}
		v.Confusion[class] = row
	}
	for i := range m.Spec().Inputs {
		v.Values = append(v.Values, m.Values(i))
	}
	return v
}

// Row reads the attributes of an event, and its label, from the log: index is
// its place in a batch, -1 if it came alone.
func (r *Replica) Row(ctx context.Context, seq uint64, index int) (attributes, label json.RawMessage, err error) {
	msg, err := r.cfg.Log.Message(ctx, seq)
	if err != nil {
		return nil, nil, err
	}
	data := json.RawMessage(msg.Data)
	if index >= 0 {
		var batch []json.RawMessage
		if err := json.Unmarshal(data, &batch); err != nil || index >= len(batch) {
			return nil, nil, fmt.Errorf("message %d holds no event %d", seq, index)
		}
		data = batch[index]
	}
	var event map[string]json.RawMessage
	if err := json.Unmarshal(data, &event); err != nil || event["attributes"] == nil ||
		!strings.HasSuffix(msg.Subject, "."+model.SubjectLearn) {
		return nil, nil, fmt.Errorf("message %d holds no event that can be read", seq)
	}
	return event["attributes"], event[r.cfg.Spec.Label.Name], nil
}

// Peers are the other replicas, sorted by name, with those that left in the
// last ten minutes; reachable is false while the fleet cannot be asked. Chain
// is this replica's state chain at the sequence at, the last that it and all
// that agree have reached: it is the chain of each of them.
func (r *Replica) Peers() (peers []fleet.Peer, at uint64, chain string, reachable bool) {
	peers = r.members.All()
	own := r.heartbeat()
	r.core.mu.Lock()
	defer r.core.mu.Unlock()
	at, chain = r.core.model.Seq(), hexOf(r.core.model.StateChain())
	for i := range peers {
		p := &peers[i]
		p.Agreement = fleet.Compare(&p.Heartbeat, &own, r.core.watch.chainsAt)
		if p.Agreement == fleet.Agrees && !p.Gone && p.Seq < at {
			at = p.Seq
			_, chain, _ = r.core.watch.chainsAt(at)
		}
	}
	return peers, at, chain, r.Fleet() != nil
}

// chainsAt returns the chains after a sequence, if they are still known.
func (h *watch) chainsAt(seq uint64) (log, state string, known bool) {
	c := &h.chains[seq%tailChains]
	if c.seq != seq {
		return "", "", false
	}
	return hexOf(c.log), hexOf(c.state), true
}

func hexOf(sum [32]byte) string { return hex.EncodeToString(sum[:]) }
