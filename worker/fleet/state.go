package fleet

import (
	"encoding/hex"
	"time"

	"lockstep/model"
)

// State is what a replica is doing.
type State int32

// The states, in the order of a replica's life.
const (
	Restoring   State = iota // looks for where to start
	Replaying                // applies what the log holds, and does not answer yet
	Ready                    // caught up: answers
	Draining                 // answers what it has accepted, and accepts no more
	Stopped                  //
	Quarantined              // not to be trusted: answers nothing but its status
	Failed                   // a component panicked: applies nothing more, and answers nothing but its status
)

func (s State) String() string {
	return [...]string{"restoring", "replaying", "ready", "draining", "stopped", "quarantined", "failed"}[s]
}

// MaxBehind is how many messages a replica may be behind the furthest live one
// before it leaves the group. It is not compared with the log's end: a bulk
// load would empty the group.
const MaxBehind = 10_000

// Status is what a replica says of itself to anyone who asks.
type Status struct {
	Replica   string `json:"replica"`
	State     string `json:"state"`
	Lag       uint64 `json:"lag"` // messages of the log not applied yet
	Predicted int64  `json:"predicted"`

	Seq        uint64  `json:"seq"`
	Learned    uint64  `json:"learned"`
	Rejected   uint64  `json:"rejected"`
	Duplicates uint64  `json:"duplicates"`
	*Scores            // nil where the label is a number
	*Errors            // nil where it is none
	Rolling    Rolling `json:"rolling"`

	Vocabularies []model.Vocabulary `json:"vocabularies,omitempty"` // of categories: how full they are

	Identity
	LogChain   string `json:"log_chain"`
	StateChain string `json:"state_chain"`
	Digest     string `json:"digest"`

	Stream     string    `json:"stream"`
	Version    string    `json:"version"`
	Started    time.Time `json:"started"` // when the process made the worker, UTC, in whole seconds
	UptimeS    int64     `json:"uptime_s"`
	Parked     int       `json:"parked"`             // requests that wait for a sequence
	Advisory   string    `json:"advisory,omitempty"` // what an operator should know
	Dropped    int       `json:"dropped,omitempty"`  // requests that came too fast, and were lost unanswered
	Folds      int64     `json:"folds,omitempty"`    // how often the replica was put on trial and folded again
	Healings   int64     `json:"healings,omitempty"` // how often that fixed it
	Restored   uint64    `json:"restored,omitempty"` // the sequence of the snapshot it began with
	Uncounted  int64     `json:"uncounted,omitempty"`
	Unreported uint64    `json:"unreported,omitempty"`
}

// Scores say how good a classifier's predictions were, each made before its
// event was learned.
type Scores struct {
	Accuracy         float64  `json:"accuracy"`
	LogLoss          float64  `json:"log_loss"`
	MacroF1          float64  `json:"macro_f1"`
	BalancedAccuracy float64  `json:"balanced_accuracy"`
	Kappa            float64  `json:"kappa"`             // Cohen's
	ROCAUC           *float64 `json:"roc_auc,omitempty"` // of a label that is a boolean
}

// Errors say how far predictions of a number were from it.
type Errors struct {
	MAE  float64 `json:"mae"`  // in the label's unit
	RMSE float64 `json:"rmse"` // in the label's unit
	R2   float64 `json:"r2"`
}

// Rolling is how good a model was over the last events.
type Rolling struct {
	Events int `json:"events"`
	*RollingScores
	*RollingErrors
}

// RollingScores are a classifier's.
type RollingScores struct {
	Accuracy float64 `json:"accuracy"`
	LogLoss  float64 `json:"log_loss"`
}

// RollingErrors are of a label that is a number.
type RollingErrors struct {
	MAE  float64 `json:"mae"`
	RMSE float64 `json:"rmse"`
}

// Fullest is the vocabulary with the least room left, in shares; nil where
// there is none. It is nearly full where a tenth is left at the most.
func (s *Status) Fullest() (v *model.Vocabulary, nearly bool) {
	share := func(v *model.Vocabulary) float64 { return float64(v.Values) / float64(max(v.Most, 1)) }
	for i := range s.Vocabularies {
		if next := &s.Vocabularies[i]; v == nil || share(next) > share(v) {
			v = next
		}
	}
	return v, v != nil && share(v) >= 0.9
}

// Quality names the score that tells most, and says what it is: the accuracy,
// or where the label is a number the MAE.
func (s *Status) Quality() (name string, value float64) {
	switch {
	case s.Errors != nil:
		return "MAE", s.MAE
	case s.Scores != nil:
		return "accuracy", s.Accuracy
	default:
		return "accuracy", 0
	}
}

// DescribeScores fills in how much a model has learned, and how well.
func (s *Status) DescribeScores(m *model.Model) {
	scores := m.Metrics()
	s.Seq, s.Learned, s.Rejected, s.Duplicates = m.Seq(), m.Learned(), m.Rejected(), m.Duplicates()
	if scores.Kind() == model.Number {
		var r RollingErrors
		s.Rolling.Events, r.MAE, r.RMSE = scores.RollingErrors()
		s.Errors, s.Rolling.RollingErrors = &Errors{scores.MAE(), scores.RMSE(), scores.R2()}, &r
	} else {
		var r RollingScores
		s.Rolling.Events, r.Accuracy, r.LogLoss = scores.Rolling()
		s.Rolling.RollingScores = &r
		s.Scores = &Scores{
			Accuracy: scores.Accuracy(), LogLoss: scores.LogLoss(), MacroF1: scores.MacroF1(),
			BalancedAccuracy: scores.BalancedAccuracy(), Kappa: scores.Kappa(),
		}
		if scores.Kind() == model.Boolean {
			area := scores.ROCAUC()
			s.ROCAUC = &area
		}
	}
	s.Identity, s.Vocabularies = IdentityOf(m), m.Vocabularies()
}

// DescribeState fills in the chains and the digest of a model's state.
func (s *Status) DescribeState(m *model.Model) {
	digest := m.Digest()
	s.LogChain, s.StateChain = Chains(m)
	s.Digest = hex.EncodeToString(digest[:])
}
