package serve

import (
	"lockstep/bus"
	"lockstep/model"
)

// explain answers like predict, with the probabilities and what each feature
// added to each class.
func (s *Server) explain(req bus.Request) { s.withRow(req, (*Server).replyExplanation) }

func (s *Server) replyExplanation(req bus.Request, row model.Row, _ *rowWork) {
	e := s.explanation(row)
	if e == nil {
		s.refuseUnready(req)
		return
	}
	s.respond(req, e)
}

// explanation explains a row; nil if the model has failed.
func (s *Server) explanation(row model.Row) *Explanation {
	m := s.replica.Lock()
	defer s.replica.Unlock()
	if m == nil {
		return nil
	}
	e := m.Explain(row)
	names := m.Labels()
	if s.cfg.Spec.Label.Type == model.Number { // there are no classes: the number has its own name
		names = []string{s.cfg.Spec.Label.Name}
	}
	byLabel := func(values []float64) map[string]float64 {
		out := make(map[string]float64, len(values))
		for i, v := range values {
			out[names[i]] = v
		}
		return out
	}
	out := &Explanation{
		Proba: byLabel(e.Proba), Unit: string(e.Unit), Prior: byLabel(e.Prior), Features: []Contribution{},
		Learned: m.Learned(), Seq: m.Seq(), Receipt: m.Receipt().String(),
		Label: null, key: s.labels.key,
	}
	if e.Known {
		out.Label = e.Label.AppendJSON(nil)
	}
	for _, f := range e.Features {
		out.Features = append(out.Features, Contribution{f.Feature, f.Value, byLabel(f.Adds), string(e.Unit)})
	}
	return out
}
