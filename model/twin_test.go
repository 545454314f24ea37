package model_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"lockstep/model"
	"lockstep/model/river"
)

// The slow, obvious twin of the model: the whole fold once more, written from
// River's source with ordered lists and maps, and compared with the model on
// random logs. It has no slots, no caches and no numbers for names, so what is
// clever in the model is not here to be wrong in the same way.

// --- River's pipeline ---

// feature is an item of one of River's dicts. A value is nil, a float64 or a
// string.
type feature struct {
	name  string
	value any
}

// features is one of River's dicts: in the order of insertion.
type features []feature

func (x features) get(name string) any {
	for _, f := range x {
		if f.name == name {
			return f.value
		}
	}
	panic("KeyError: " + name)
}

// with is a copy of the dict after x[name] = value: a key that is there keeps
// its place.
func (x features) with(name string, value any) features {
	x = slices.Clone(x)
	for i := range x {
		if x[i].name == name {
			x[i].value = value
			return x
		}
	}
	return append(x, feature{name, value})
}

// transformer is what all of River's steps but the last are.
type transformer interface {
	learnOne(x features)
	transformOne(x features) features
	counts(out counts) // adds what model.Counts has of it
}

// counts is a JSON object.
type counts map[string]any

func (c counts) within(key string) counts {
	if c[key] == nil {
		c[key] = counts{}
	}
	return c[key].(counts)
}

// pipeline is compose.Pipeline, without its classifier.
type pipeline []transformer

func (p pipeline) learnOne(x features) {
	for _, step := range p {
		step.learnOne(x)
		x = step.transformOne(x)
	}
}

func (p pipeline) transformOne(x features) features {
	for _, step := range p {
		x = step.transformOne(x)
	}
	return x
}

func (p pipeline) counts(out counts) {
	for _, step := range p {
		step.counts(out)
	}
}

// transformerUnion is compose.TransformerUnion.
type transformerUnion []pipeline

func (u transformerUnion) learnOne(x features) {
	for _, branch := range u {
		branch.learnOne(x)
	}
}

func (u transformerUnion) transformOne(x features) features {
	var out features
	for _, branch := range slices.Backward(u) {
		for _, f := range branch.transformOne(x) {
			out = out.with(f.name, f.value)
		}
	}
	return out
}

func (u transformerUnion) counts(out counts) {
	for _, branch := range u {
		branch.counts(out)
	}
}

// selectKeys is compose.Select. River's is a set; ours has the declared order.
type selectKeys []string

func (s selectKeys) learnOne(features) {}
func (s selectKeys) counts(counts)     {}
func (s selectKeys) transformOne(x features) features {
	var out features
	for _, key := range s {
		out = append(out, feature{key, x.get(key)})
	}
	return out
}

// statistic is stats.base.Univariate.
type statistic interface {
	update(x any)
	get() any
}

// mean is stats.Mean.
type mean struct{ n, mean float64 }

func (m *mean) get() any     { return m.mean }
func (m *mean) update(x any) { m.add(x.(float64)) }
func (m *mean) add(x float64) {
	m.n++
	m.mean += float64(1 / m.n * (x - m.mean))
}

// mode is stats.Mode, with its default k of 25.
type mode struct {
	values []string // the keys of n, in the order of insertion
	n      map[string]int
}

func (m *mode) update(x any) {
	value := x.(string)
	if slices.Contains(m.values, value) {
		m.n[value]++
	} else if len(m.values) < 25 {
		m.values = append(m.values, value)
		m.n[value] = 1
	}
}

func (m *mode) get() any {
	var best any // None
	for _, value := range m.values {
		if best == nil || m.n[value] > m.n[best.(string)] {
			best = value
		}
	}
	return best
}

// constant is what StatImputer makes of a number.
type constant float64

func (c constant) update(any) {}
func (c constant) get() any   { return float64(c) }

// statImputer is preprocessing.StatImputer.
type statImputer map[string]statistic

func (s statImputer) learnOne(x features) {
	for column, stat := range s {
		if v := x.get(column); v != nil {
			stat.update(v)
		}
	}
}

func (s statImputer) transformOne(x features) features {
	for column, stat := range s {
		if x.get(column) == nil {
			x = x.with(column, stat.get())
		}
	}
	return x
}

func (s statImputer) counts(out counts) {
	for column, stat := range s {
		switch stat := stat.(type) {
		case *mean:
			out.within("means")[column] = counts{"n": stat.n, "mean": stat.mean}
		case *mode:
			out[column+"_mode"] = counts{"counts": stat.n, "mode": stat.get()}
		}
	}
}

// standardScaler is preprocessing.StandardScaler.
type standardScaler struct {
	withStd        bool
	columns        []string
	n, means, vars map[string]float64
}

func (s *standardScaler) learnOne(x features) {
	for _, f := range x {
		i, xi := f.name, f.value.(float64)
		if s.n[i]++; s.n[i] == 1 {
			s.columns = append(s.columns, i)
		}
		old := s.means[i]
		s.means[i] += (xi - old) / s.n[i]
		if s.withStd {
			s.vars[i] += (float64((xi-old)*(xi-s.means[i])) - s.vars[i]) / s.n[i]
		}
	}
}

func (s *standardScaler) transformOne(x features) features {
	var out features
	for _, f := range x {
		v := f.value.(float64) - s.means[f.name]
		switch {
		case s.withStd && s.vars[f.name] == 0:
			v = 0
		case s.withStd:
			v /= math.Sqrt(s.vars[f.name])
		}
		out = append(out, feature{f.name, v})
	}
	return out
}

func (s *standardScaler) counts(out counts) {
	for _, i := range s.columns {
		out.within("scaler")[i] = counts{"n": s.n[i], "mean": s.means[i], "var": s.vars[i]}
	}
}

// oneHotEncoder is preprocessing.OneHotEncoder.
type oneHotEncoder struct {
	dropFirst bool
	zeroDict  features
	columns   map[string][]string // the keys of zeroDict, by column
}

// dummy is Python's f"{i}_{xi}".
func dummy(column string, value any) string {
	if value == nil {
		return column + "_None"
	}
	return column + "_" + value.(string)
}

func (e *oneHotEncoder) learnOne(x features) {
	for _, f := range x {
		key := dummy(f.name, f.value)
		if !slices.Contains(e.columns[f.name], key) {
			e.columns[f.name] = append(e.columns[f.name], key)
		}
		e.zeroDict = e.zeroDict.with(key, 0.0)
	}
}

func (e *oneHotEncoder) transformOne(x features) features {
	out := e.zeroDict
	for _, f := range x {
		out = out.with(dummy(f.name, f.value), 1.0)
	}
	if e.dropFirst {
		least := out[0].name
		for _, f := range out {
			least = min(least, f.name)
		}
		out = slices.DeleteFunc(slices.Clone(out), func(f feature) bool { return f.name == least })
	}
	return out
}

func (e *oneHotEncoder) counts(out counts) {
	for column, keys := range e.columns {
		out.within("onehot")[column] = keys
	}
}

// build makes River's objects of a spec's steps.
func build(steps []river.Step) pipeline {
	var out pipeline
	for i := range steps {
		s := &steps[i]
		switch s.Class.Name {
		case "Select":
			out = append(out, selectKeys(river.Arg[[]string](s, "keys")))
		case "union":
			var union transformerUnion
			for _, branch := range river.Arg[[][]river.Step](s, "transformers") {
				union = append(union, build(branch))
			}
			out = append(out, union)
		case "StatImputer":
			imputer := statImputer{}
			for _, statistic := range river.Arg[[]river.Statistic](s, "imputers") {
				switch statistic.Name {
				case "Mean":
					imputer[statistic.Column] = &mean{}
				case "Mode":
					imputer[statistic.Column] = &mode{n: map[string]int{}}
				case "Constant":
					imputer[statistic.Column] = constant(statistic.Value)
				}
			}
			out = append(out, imputer)
		case "StandardScaler":
			out = append(out, &standardScaler{
				withStd: river.Arg[bool](
					s, "with_std",
				), n: map[string]float64{}, means: map[string]float64{}, vars: map[string]float64{},
			})
		case "OneHotEncoder":
			out = append(out, &oneHotEncoder{dropFirst: river.Arg[bool](s, "drop_first"), columns: map[string][]string{}})
		default:
			panic(s.Class.Name)
		}
	}
	return out
}

// --- River's classifiers ---

// classifier is naive_bayes.base.BaseNB, but for the classes' priors.
type classifier interface {
	learnOne(x features, y string)
	logLikelihood(x features, c string) likelihood
	counts(out counts)
}

// likelihood is what the features add to a class's joint log-likelihood.
type likelihood struct {
	sum      float64
	noise    float64   // by how much another rounding of the same arithmetic may move the sum
	evidence []float64 // all that was learned of the class and went into the sum
}

// multinomialNB is naive_bayes.MultinomialNB.
type multinomialNB struct {
	alpha         float64
	featureCounts map[string]map[string]float64
	classTotals   map[string]float64
}

func (m *multinomialNB) learnOne(x features, y string) {
	m.classTotals[y] += 0 // a class without features has a total too
	for _, f := range x {
		if m.featureCounts[f.name] == nil {
			m.featureCounts[f.name] = map[string]float64{}
		}
		m.featureCounts[f.name][y] += f.value.(float64)
		m.classTotals[y] += f.value.(float64)
	}
}

func (m *multinomialNB) logLikelihood(x features, c string) likelihood {
	l := likelihood{evidence: []float64{m.classTotals[c]}}
	nTerms := float64(len(m.featureCounts))
	for _, f := range x {
		frequency := f.value.(float64)
		count := m.featureCounts[f.name][c]
		whole := m.classTotals[c] + float64(m.alpha*nTerms)
		if whole == 0 { // River fails here; it is no evidence
			l.evidence = append(l.evidence, count)
			continue
		}
		p := (count + m.alpha) / whole
		term := frequency * math.Log(p)
		l.sum += term
		l.noise += 1e-14 * (frequency + math.Abs(term))
		l.evidence = append(l.evidence, count)
	}
	return l
}

func (m *multinomialNB) counts(out counts) {
	out["n_terms"], out["feature_counts"], out["class_totals"] = len(m.featureCounts), m.featureCounts, m.classTotals
}

// gaussianNB is naive_bayes.GaussianNB.
type gaussianNB struct {
	gaussians map[string]map[string]*gaussian // by class and feature
}

// gaussian is proba.Gaussian over stats.Var, whose ddof GaussianNB sets to 0.
type gaussian struct {
	mean mean
	s    float64
}

func (g *gaussian) update(x float64) {
	old := g.mean.mean
	g.mean.add(x)
	g.s += float64((x - old) * (x - g.mean.mean))
}

func (g *gaussian) density(x float64) float64 {
	variance := g.s / g.mean.n
	if variance <= 0 {
		return 0
	}
	sigma := math.Sqrt(variance)
	z := (x - g.mean.mean) / sigma
	return math.Exp(-0.5*z*z) / math.Sqrt(2*math.Pi) / sigma
}

func (m *gaussianNB) learnOne(x features, y string) {
	if m.gaussians[y] == nil {
		m.gaussians[y] = map[string]*gaussian{}
	}
	for _, f := range x {
		if m.gaussians[y][f.name] == nil {
			m.gaussians[y][f.name] = &gaussian{}
		}
		m.gaussians[y][f.name].update(f.value.(float64))
	}
}

func (m *gaussianNB) logLikelihood(x features, c string) likelihood {
	var l likelihood
	for _, f := range x {
		g := m.gaussians[c][f.name]
		if g == nil { // the class never learned it
			l.sum += math.Log(10e-10)
			l.evidence = append(l.evidence, 0, 0, 0)
			continue
		}
		l.sum += math.Log(10e-10 + g.density(f.value.(float64)))
		l.noise += 1e-12
		l.evidence = append(l.evidence, g.mean.n, g.mean.mean, g.s)
	}
	return l
}

func (m *gaussianNB) counts(out counts) {
	for class, gaussians := range m.gaussians {
		for name, g := range gaussians {
			out.within("gaussians").within(class)[name] = counts{"n": g.mean.n, "mean": g.mean.mean, "s": g.s}
		}
	}
}

// --- the fold ---

// twin is one replica's state.
type twin struct {
	spec        *model.Spec
	pipeline    pipeline
	classifier  classifier
	classCounts map[string]int

	incarnation                   string
	learned, rejected, duplicates uint64
	labels                        []string            // in the order they were learned
	values                        map[string][]string // learned, by category
	ids                           []remembered        // the oldest first
	scores                        []score
}

// id is an event's own id, or its message's and its index.
type id struct {
	own   bool
	text  string
	index int
}

// remembered is an id, what its event said, and what was said of it.
type remembered struct {
	id     id
	event  event
	answer model.Answer
}

// score is one prediction that was scored.
type score struct {
	label, predicted string
	known            bool
	loss, slack      float64 // slack: by how much rounding may have moved the loss
}

// event is a good learn event.
type event struct {
	attributes map[string]any // nil, float64 or string, by input
	label      string
}

func (e event) equal(other event) bool {
	return e.label == other.label && maps.Equal(e.attributes, other.attributes)
}

func newTwin(s *model.Spec) *twin {
	last := len(s.Pipeline) - 1
	tw := &twin{
		spec: s, pipeline: build(s.Pipeline[:last]), classCounts: map[string]int{},
		values: map[string][]string{},
	}
	switch end := &s.Pipeline[last]; end.Class.Name {
	case "MultinomialNB":
		tw.classifier = &multinomialNB{
			alpha: river.Arg[float64](end, "alpha"), featureCounts: map[string]map[string]float64{},
			classTotals: map[string]float64{},
		}
	case "GaussianNB":
		tw.classifier = &gaussianNB{gaussians: map[string]map[string]*gaussian{}}
	}
	return tw
}

// said is what the fold says of one event.
type said struct {
	verdict  model.Verdict
	answer   model.Answer
	conflict bool
	problem  string   // type of the first problem
	full     []string // places that have no room
	forecast forecast
}

// apply folds a message. The hints are the labels that the model predicted:
// where rounding decides between labels, any of them is right.
func (tw *twin) apply(msg message, hints []string) []said {
	reject := func(problem string) []said {
		tw.rejected++
		return []said{{verdict: model.Rejected, problem: problem}}
	}
	switch {
	case msg.bad != "":
		return reject(msg.bad)
	case msg.Subject == model.SubjectGenesis:
		var genesis struct{ Incarnation string }
		if err := json.Unmarshal(msg.Data, &genesis); err != nil {
			panic(err)
		}
		tw.incarnation = genesis.Incarnation
		return nil
	case msg.Subject == model.SubjectCheckpoint:
		return nil
	}
	var out []said
	for i, e := range msg.events {
		hint := ""
		if i < len(hints) {
			hint = hints[i]
		}
		if e.bad != "" {
			out = append(out, reject(e.bad)...)
		} else {
			out = append(out, tw.event(msg, i, hint))
		}
	}
	return out
}

// parse reads a good event.
func (tw *twin) parse(msg message, index int) (id, event) {
	var body map[string]any
	if err := json.Unmarshal([]byte(msg.events[index].json), &body); err != nil {
		panic(err)
	}
	e := event{tw.row(body["attributes"].(map[string]any)), body[tw.spec.Label.Name].(string)}
	if own, ok := body["id"].(string); ok {
		return id{own: true, text: own}, e
	}
	return id{text: msg.ID, index: index}, e
}

// row is the declared inputs of an event's attributes.
func (tw *twin) row(attributes map[string]any) map[string]any {
	row := map[string]any{}
	for _, f := range tw.spec.Inputs {
		row[f.Name] = attributes[f.Name]
	}
	return row
}

// find looks an id up; no id is never found.
func (tw *twin) find(key id) (remembered, bool) {
	for _, r := range tw.ids {
		if key.text != "" && r.id == key {
			return r, true
		}
	}
	return remembered{}, false
}

func (tw *twin) event(msg message, index int, hint string) said {
	key, e := tw.parse(msg, index)
	if first, found := tw.find(key); found {
		tw.duplicates++
		return said{verdict: model.Duplicate, answer: first.answer, conflict: !first.event.equal(e)}
	}
	if full := tw.full(e); len(full) > 0 {
		if msg.batch {
			for i := range full {
				full[i] = fmt.Sprint(index, ".", full[i])
			}
		}
		tw.rejected++
		return said{verdict: model.Rejected, problem: "too_many_values", full: full}
	}
	forecast := tw.predict(e.attributes)
	predicted := forecast.best()
	if forecast.allows(hint) {
		predicted = hint
	}
	tw.score(e.label, predicted, forecast)
	tw.learn(e)
	answer := model.Answer{Seq: msg.Seq, Index: uint64(index), Learned: tw.learned, Label: class(e.label)}
	if len(forecast.labels) > 0 {
		answer.Predicted, answer.Known = class(predicted), true
	}
	if key.text != "" {
		tw.ids = append(tw.ids, remembered{key, e, answer})
		if len(tw.ids) > tw.spec.DedupWindow {
			tw.ids = tw.ids[1:]
		}
	}
	return said{verdict: model.Learned, answer: answer, forecast: forecast}
}

// full names the values that there is no room for.
func (tw *twin) full(e event) []string {
	var out []string
	for _, f := range tw.spec.Inputs {
		if text, ok := e.attributes[f.Name].(string); ok && !slices.Contains(tw.values[f.Name], text) &&
			len(tw.values[f.Name]) == f.MaxValues {
			out = append(out, "attributes."+f.Name)
		}
	}
	if !slices.Contains(tw.labels, e.label) && len(tw.labels) == tw.spec.Label.MaxValues {
		out = append(out, tw.spec.Label.Name)
	}
	return out
}

// dict is an event as River gets it.
func (tw *twin) dict(attributes map[string]any) features {
	var x features
	for _, f := range tw.spec.Inputs {
		x = append(x, feature{f.Name, attributes[f.Name]})
	}
	return x
}

func (tw *twin) learn(e event) {
	x := tw.dict(e.attributes)
	for _, f := range x {
		if text, ok := f.value.(string); ok && !slices.Contains(tw.values[f.name], text) {
			tw.values[f.name] = append(tw.values[f.name], text)
		}
	}
	if !slices.Contains(tw.labels, e.label) {
		tw.labels = append(tw.labels, e.label)
	}
	tw.pipeline.learnOne(x)
	tw.classCounts[e.label]++
	tw.classifier.learnOne(tw.pipeline.transformOne(x), e.label)
	tw.learned++
}

func (tw *twin) counts() counts {
	out := counts{"learned": tw.learned, "class_counts": tw.classCounts}
	tw.pipeline.counts(out)
	tw.classifier.counts(out)
	return out
}

// forecast is a prediction, by class.
type forecast struct {
	labels   []string
	evidence [][]float64 // the class's count, and its likelihood's
	joint    []float64   // joint log-likelihoods
	proba    []float64
	noise    float64 // by how much rounding may move log(proba)
}

func (tw *twin) predict(attributes map[string]any) forecast {
	x := tw.pipeline.transformOne(tw.dict(attributes))
	f := forecast{labels: slices.Clone(tw.labels)}
	for _, c := range f.labels {
		count := float64(tw.classCounts[c])
		l := tw.classifier.logLikelihood(x, c)
		f.evidence = append(f.evidence, append(l.evidence, count))
		f.joint = append(f.joint, math.Log(count/float64(tw.learned))+l.sum)
		f.noise = max(f.noise, 2*l.noise)
	}
	if len(f.labels) == 0 {
		return f
	}
	most, sum := slices.Max(f.joint), 0.0
	for _, joint := range f.joint {
		sum += math.Exp(joint - most)
	}
	for _, joint := range f.joint {
		f.proba = append(f.proba, math.Exp(joint-most)/sum)
	}
	return f
}

// best is the label of the highest probability, of equals the first learned;
// empty if nothing is known.
func (f forecast) best() string {
	best := ""
	most := 0.0
	for i, label := range f.labels {
		if f.proba[i] > most {
			best, most = label, f.proba[i]
		}
	}
	return best
}

// allows reports whether a label may be called the best one: only rounding
// keeps it from that. Of classes with the very same evidence only the first
// may, for rounding treats them alike.
func (f forecast) allows(label string) bool {
	i := slices.Index(f.labels, label)
	if i < 0 {
		return false
	}
	for _, earlier := range f.evidence[:i] {
		if slices.Equal(earlier, f.evidence[i]) {
			return false
		}
	}
	return f.proba[i] >= slices.Max(f.proba)*(1-f.tolerance())
}

// tolerance is how far a probability may be off, relative to it.
func (f forecast) tolerance() float64 { return 1e-9 + math.Expm1(min(f.noise, 700)) }

// score is metrics.CrossEntropy's clamped loss, and what the other metrics
// need. Unlike in River a label without a probability has the probability 0.
func (tw *twin) score(label, predicted string, f forecast) {
	p := 0.0
	s := score{label: label, predicted: predicted, known: len(f.labels) > 0}
	if i := slices.Index(f.labels, label); i >= 0 {
		p = f.proba[i]
		s.slack = min(35, 2*f.noise)
	}
	s.loss = -math.Log(min(max(p, 1e-15), 1-1e-15))
	tw.scores = append(tw.scores, s)
}

// report is what the metrics say of scores.
type report struct {
	n, correct      int
	accuracy        float64
	logLoss, slack  float64
	macroF1         float64
	confusion       map[string]map[string]int // by label and predicted; the predicted label may be none
	given, foretold map[string]int
}

func (tw *twin) report(scores []score) report {
	r := report{
		n: len(scores), confusion: map[string]map[string]int{}, given: map[string]int{},
		foretold: map[string]int{},
	}
	for _, s := range scores {
		predicted := "none"
		if s.known {
			predicted = "label " + s.predicted
		}
		if s.known && s.predicted == s.label {
			r.correct++
		}
		if r.confusion[s.label] == nil {
			r.confusion[s.label] = map[string]int{}
		}
		r.confusion[s.label][predicted]++
		r.given[s.label]++
		r.foretold[predicted]++
		r.logLoss += s.loss / float64(r.n)
		r.slack += s.slack / float64(r.n)
	}
	if r.n == 0 {
		return r
	}
	r.accuracy = float64(r.correct) / float64(r.n)
	for label, given := range r.given {
		hits := float64(r.confusion[label]["label "+label])
		if hits == 0 {
			continue // precision or recall is 0, and with it F1
		}
		precision, recall := hits/float64(r.foretold["label "+label]), hits/float64(given)
		r.macroF1 += 2 * precision * recall / (precision + recall) / float64(len(r.given))
	}
	return r
}

// --- random logs ---

// message is a message of the log, with what the generator knows of it.
type message struct {
	model.Message
	batch  bool
	bad    string // of a message that is bad as a whole: its problem's type
	events []spelled
}

// spelled is an event as JSON.
type spelled struct {
	json string
	bad  string // its first problem's type, if it is bad
}

// draft is a good event: JSON texts.
type draft struct {
	values []string // by input
	label  string
	id     string // its own, empty if it has none
}

// generator makes a random log for a spec.
type generator struct {
	*rand.Rand
	spec    *model.Spec
	span    float64          // numbers are from -span to span, as far as the bounds allow
	pools   map[int][]string // of a category's values, by input; -1 is the label
	sent    []message
	drafts  []draft
	seq     uint64
	counter int // makes ids that were never used
}

func newGenerator(r *rand.Rand, s *model.Spec) *generator {
	g := &generator{Rand: r, spec: s, span: 20, pools: map[int][]string{-1: pool(r, s.Label, 6)}}
	for i, f := range s.Inputs {
		if f.Type == model.Category {
			g.pools[i] = pool(r, f, 9)
		}
	}
	switch r.IntN(8) {
	case 0, 1:
		g.span = math.Inf(1)
	case 2: // the squares of such numbers are 0
		g.span = 1e-200
	}
	return g
}

// pool is a category's possible values: few ones, or more than fit.
func pool(r *rand.Rand, f model.Field, few int) []string {
	special := []string{"None", "", "Z", "a", "b", "_", "é", "\u007f", "😀", "\"", "a_b", "none"}
	var out []string
	for _, text := range special {
		if (text == "None" || r.IntN(3) == 0) && len(text) <= f.MaxBytes { // a null's dummy ends in None
			out = append(out, text)
		}
	}
	size := min(2+r.IntN(few), f.MaxValues)
	if r.IntN(3) == 0 {
		size = f.MaxValues + 1 + r.IntN(2)
	}
	for len(out) < size {
		out = append(out, fmt.Sprint(string(rune('A'+r.IntN(26))), len(out)))
	}
	r.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out[:size] // the first ones are picked more often
}

// one reports whether something happens that happens once in n times.
func (g *generator) one(n int) bool { return g.IntN(n) == 0 }

func pick[T any](g *generator, from []T) T { return from[g.IntN(len(from))] }

// recent picks something, mostly of the last.
func recent[T any](g *generator, from []T) T {
	if !g.one(3) {
		from = from[max(0, len(from)-8):]
	}
	return pick(g, from)
}

func (g *generator) value(i int) string {
	f := g.spec.Inputs[i]
	switch {
	case f.Nullable && g.one(5):
		return "null"
	case f.Type == model.Category:
		return quote(g.category(i))
	}
	return strconv.FormatFloat(g.number(f), 'g', -1, 64)
}

// category picks a value, mostly one of the pool's first.
func (g *generator) category(i int) string {
	from := g.pools[i]
	return from[g.IntN(1+g.IntN(len(from)))]
}

func quote(text string) string {
	out, err := json.Marshal(text)
	if err != nil {
		panic(err)
	}
	return string(out)
}

func (g *generator) number(f model.Field) float64 {
	least, most := max(f.Min, -g.span), min(f.Max, g.span)
	x := least + (most-least)*g.Float64()
	switch g.IntN(8) {
	case 0, 1:
		x = pick(g, []float64{least, most, 0, 0, 1e-9, 1e-300, 5e-324, 1, most / 3})
	case 2:
		x = math.Mod(x, 3)
	case 3, 4, 5:
		x = math.Floor(math.Mod(x, 20))
	}
	return min(max(x, least), most)
}

func (g *generator) draft() draft {
	var d draft
	for i := range g.spec.Inputs {
		d.values = append(d.values, g.value(i))
	}
	if len(g.drafts) > 0 && g.one(4) { // one row with two labels makes ties
		d.values = slices.Clone(recent(g, g.drafts).values)
	}
	d.label = quote(g.category(-1))
	if g.one(5) {
		d.id = quote(g.id())
	}
	if len(g.drafts) > 0 && g.one(8) {
		d = g.almost(recent(g, g.drafts))
	}
	g.drafts = append(g.drafts, d)
	return d
}

// almost is a draft that has another's id, and differs in one place if at all.
func (g *generator) almost(d draft) draft {
	if g.one(3) {
		return d // perhaps in another spelling
	}
	d.values = slices.Clone(d.values)
	i := g.IntN(len(d.values) + 1)
	if i == len(d.values) {
		d.label = quote(g.category(-1))
		return d
	}
	f := g.spec.Inputs[i]
	switch {
	case f.Nullable && d.values[i] != "null":
		d.values[i] = "null"
	case f.Type == model.Category:
		d.values[i] = pick(g, []string{`""`, quote("None"), g.value(i)})
	default:
		d.values[i] = pick(g, []string{"0", g.value(i)}) // every spec's bounds have room for 0
	}
	return d
}

// id makes an id: a new one, or one of a few that soon come again.
func (g *generator) id() string {
	if g.one(2) {
		return pick(g, []string{"a", "b", "a.0", "a.1", "c", "d"})
	}
	g.counter++
	return fmt.Sprint("id", g.counter)
}

// spell writes a draft as JSON, sometimes in an odd way that means the same.
func (g *generator) spell(d draft) string {
	odd := g.one(4)
	var attributes []string
	for i, f := range g.spec.Inputs {
		text := d.values[i]
		if odd {
			text = oddly(text)
		}
		attributes = append(attributes, quote(f.Name)+":"+text)
	}
	body := []string{`"attributes":{` + strings.Join(attributes, ",") + `}`, quote(g.spec.Label.Name) + ":" + d.label}
	switch {
	case d.id != "":
		body = append(body, `"id":`+d.id)
	case odd:
		body = append(body, `"id":null`)
	}
	if odd {
		g.Shuffle(len(attributes), func(i, j int) { attributes[i], attributes[j] = attributes[j], attributes[i] })
		body[0] = `"attributes": {"extra":[{}], ` + strings.Join(attributes, " ,\n") + ` }`
		body = append(body, `"ID":7`)
		g.Shuffle(len(body), func(i, j int) { body[i], body[j] = body[j], body[i] })
	}
	return "{" + strings.Join(body, ",") + "}"
}

// oddly spells a value in another way.
func oddly(text string) string {
	switch {
	case text == "0":
		return "-0.0"
	case len(text) > 2 && text[0] == '"' && 'A' <= text[1] && text[1] <= 'z' && text[1] != '\\':
		return fmt.Sprintf(`"\u%04x%s`, text[1], text[2:])
	case text[0] != '"' && text != "null" && !strings.Contains(text, "e"):
		return text + "E+0"
	}
	return text
}

// spoil makes a draft bad in one way.
func (g *generator) spoil(d draft) spelled {
	d.values = slices.Clone(d.values)
	i := g.IntN(len(g.spec.Inputs))
	f := g.spec.Inputs[i]
	replace := func(text, bad string) spelled {
		d.values[i] = text
		return spelled{g.spell(d), bad}
	}
	switch g.IntN(9) {
	case 0: // the label, one byte too long
		d.label = quote(strings.Repeat("x", g.spec.Label.MaxBytes+1))
		return spelled{g.spell(d), "string_too_long"}
	case 1:
		d.id = `""`
		return spelled{g.spell(d), "string_too_short"}
	case 2:
		d.label = "null"
		return spelled{g.spell(d), "string_type"}
	case 3:
		return spelled{`{"attributes":{},` + quote(g.spec.Label.Name) + ":" + d.label + "}", "missing"}
	case 4:
		text := g.spell(d)
		return spelled{text[:len(text)-1] + "," + quote(g.spec.Label.Name) + ":" + d.label + "}", "duplicate_key"}
	case 5:
		return spelled{pick(g, []string{"7", "null", `"text"`, "[]"}), "model_attributes_type"}
	}
	switch {
	case f.Type == model.Category && g.one(2):
		return replace(quote(strings.Repeat("x", f.MaxBytes+1)), "string_too_long")
	case f.Type == model.Category:
		return replace("true", "string_type")
	case g.one(2):
		return replace(strconv.FormatFloat(math.Nextafter(f.Max, math.Inf(1)), 'g', -1, 64), "less_than_equal")
	case g.one(2):
		return replace(strconv.FormatFloat(math.Nextafter(f.Min, math.Inf(-1)), 'g', -1, 64), "greater_than_equal")
	case !f.Nullable:
		return replace("null", "float_type")
	}
	return replace("1e999", "finite_number")
}

func (g *generator) event() spelled {
	d := g.draft()
	if g.one(12) {
		return g.spoil(d)
	}
	return spelled{json: g.spell(d)}
}

// next makes the log's next message. Sequences may have holes: that they
// have none is for others to check.
func (g *generator) next() message {
	var msg message
	switch {
	case len(g.sent) == 0 && g.one(2):
		msg.Subject, msg.Data = model.SubjectGenesis, []byte(
			`{"incarnation":"first","contract":"`+strings.Repeat("0", 64)+`"}`,
		)
	case g.one(25):
		msg = g.control()
	case len(g.sent) > 0 && g.one(8):
		msg = recent(g, g.sent)
		if msg.Subject == model.SubjectGenesis {
			msg.bad = "genesis" // it is not the first any more
		}
	case g.one(25):
		msg = g.garbage()
	default:
		msg = g.learn()
	}
	g.seq++
	if len(g.sent) > 0 {
		g.seq += uint64(g.IntN(3))
	}
	msg.Seq = g.seq
	g.sent = append(g.sent, msg)
	return msg
}

func (g *generator) control() message {
	switch g.IntN(3) {
	case 0:
		return message{Message: model.Message{Subject: "ctl.other", Data: []byte("{}")}, bad: "unknown_control"}
	case 1:
		return message{
			Message: model.Message{Subject: model.SubjectGenesis, Data: []byte(`{"incarnation":"x"}`)},
			bad:     "genesis",
		}
	}
	return message{Message: model.Message{Subject: model.SubjectCheckpoint}}
}

// garbage is bad as a whole.
func (g *generator) garbage() message {
	good := g.spell(g.draft())
	all := map[string]string{
		"[]":                                    "too_short",
		`"text"`:                                "model_attributes_type",
		good[:len(good)-1]:                      "json_invalid",
		"[" + good + ",{]":                      "json_invalid",
		good + good:                             "json_invalid",
		"[0" + strings.Repeat(",0", 1000) + "]": "too_long",
	}
	text := pick(g, slices.Sorted(maps.Keys(all)))
	return message{
		Message: model.Message{Subject: model.SubjectLearn, ID: g.id(), Data: []byte(text)},
		batch:   text[0] == '[', bad: all[text],
	}
}

func (g *generator) learn() message {
	msg := message{batch: g.one(6)}
	msg.Subject = model.SubjectLearn
	if g.one(2) {
		msg.ID = g.id()
	}
	msg.events = []spelled{g.event()}
	if !msg.batch {
		if e := &msg.events[0]; e.json[0] != '{' { // only in a batch is it an event
			*e = spelled{json: g.spell(g.draft())}
		}
		msg.Data = []byte(msg.events[0].json)
		return msg
	}
	for range g.IntN(6) {
		msg.events = append(msg.events, g.event())
	}
	var texts []string
	for _, e := range msg.events {
		texts = append(texts, e.json)
	}
	msg.Data = []byte("[" + strings.Join(texts, " , ") + "]")
	return msg
}

// --- the comparison ---

// twins is a model and its twin, fed with one log.
type twins struct {
	t     *testing.T
	g     *generator
	model *model.Model
	twin  *twin
	ever  map[string]int // what happened, all logs together
}

// must ends the test if what the model says is not what the twin says.
func must[T comparable](t *testing.T, what string, model, twin T) {
	if model != twin {
		t.Helper() // here, for it is slow
		t.Fatalf("%s: the model says %v, its twin %v", what, model, twin)
	}
}

// near compares doubles, with a relative tolerance and an absolute slack.
func near(t *testing.T, what string, model, twin, tolerance, slack float64) {
	if d := math.Abs(model - twin); !(model == twin || d <= tolerance*max(math.Abs(model), math.Abs(twin))+slack) {
		t.Helper()
		t.Fatalf("%s: the model says %v, its twin %v", what, model, twin)
	}
}

// step feeds one message to both and compares what they say of it.
func (s *twins) step(msg message) {
	t := s.t
	result := s.model.Apply(msg.Message)
	must(t, "seq", result.Seq, msg.Seq)
	must(t, "batch", result.Batch, msg.batch)
	var hints []string
	for _, o := range result.Outcomes {
		hints = append(hints, o.Answer.Predicted.Text)
	}
	want := s.twin.apply(msg, hints)
	must(t, "outcomes", len(result.Outcomes), len(want))
	for i, w := range want {
		o := result.Outcomes[i]
		what := fmt.Sprint("event ", i, ": ")
		must(t, what+"verdict", o.Verdict, w.verdict)
		must(t, what+"answer", o.Answer, w.answer)
		must(t, what+"conflict", o.Conflict, w.conflict)
		must(t, what+"problems", problems(o, w), strings.Join(append([]string{w.problem}, w.full...), " "))
		s.ever[w.verdict.String()]++
		if w.conflict {
			s.ever["conflict"]++
		}
		s.ever[w.problem]++
	}
	for i, w := range want { // after all, for each has its own
		if w.verdict == model.Learned {
			s.proba(fmt.Sprint("event ", i), result.Outcomes[i].Proba, w.forecast)
		}
	}
	must(t, "learned", s.model.Learned(), s.twin.learned)
	must(t, "rejected", s.model.Rejected(), s.twin.rejected)
	must(t, "duplicates", s.model.Duplicates(), s.twin.duplicates)
	must(t, "seq of the model", s.model.Seq(), msg.Seq)
	must(t, "incarnation", s.model.Incarnation(), s.twin.incarnation)
	must(t, "tip", s.model.IsTip(msg.Message), true)
}

// problems is the first problem's type, and the places of values without room.
func problems(o model.Outcome, w said) string {
	var out []string
	for i, p := range o.Problems {
		if i == 0 {
			out = append(out, p.Type)
		}
		if w.full != nil {
			out = append(out, strings.Trim(strings.ReplaceAll(fmt.Sprint(p.Loc), " ", "."), "[]"))
		}
	}
	return strings.Join(out, " ")
}

func (s *twins) proba(what string, proba []float64, f forecast) {
	must(s.t, what+": classes", len(proba), len(f.labels))
	for i, p := range f.proba {
		near(
			s.t, fmt.Sprintf("%s: P(%q)", what, f.labels[i]), proba[i], p, f.tolerance(), 1e-300,
		) // what is below has fewer digits
	}
}

// predict compares predictions and explanations of a random row.
func (s *twins) predict() {
	t, d := s.t, s.g.draft()
	attributes := map[string]any{}
	body := "{"
	for i, f := range s.g.spec.Inputs {
		body += strings.Repeat(",", min(i, 1)) + quote(f.Name) + ":" + d.values[i]
	}
	body += "}"
	if err := json.Unmarshal([]byte(body), &attributes); err != nil {
		t.Fatal(err)
	}
	row, err := model.NewDecoder(s.g.spec).Attributes([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	f := s.twin.predict(attributes)
	p := s.model.Predict(row)
	s.proba("predict "+body, p.Proba, f)
	must(t, "known", p.Known, len(f.labels) > 0)
	if p.Label.Text != f.best() && !f.allows(p.Label.Text) {
		t.Fatalf("predict %s: the model says %s, its twin %s", body, p.Label, f.best())
	}
	if !p.Known {
		return
	}
	must(t, "class", f.labels[p.Class()], p.Label.Text)
	for i, j := range f.evidence {
		if slices.ContainsFunc(f.evidence[:i], func(e []float64) bool { return slices.Equal(e, j) }) {
			s.ever["tie"]++
		}
	}
	e := s.model.Explain(row)
	for class, joint := range f.joint {
		sum := e.Prior[class]
		for _, c := range e.Features {
			sum += c.Adds[class]
		}
		near(t, "explained "+body, sum, joint, 1e-9, 1e-9+f.noise)
	}
}

// recall compares what is remembered of an event's id.
func (s *twins) recall() {
	msg := recent(s.g, s.g.sent)
	for i, e := range msg.events {
		if e.bad != "" {
			continue
		}
		events, _, err := model.NewDecoder(s.g.spec).Learn([]byte(e.json))
		if err != nil {
			s.t.Fatal(err)
		}
		key, said := s.twin.parse(msg, i)
		first, want := s.twin.find(key)
		answer, conflict, found := s.model.Repeat(msg.ID, i, &events[0])
		must(s.t, "recall: found", found, want)
		must(s.t, "recall: answer", answer, first.answer)
		must(s.t, "recall: conflict", conflict, want && !said.equal(first.event))
	}
}

func (s *twins) metrics() {
	t, m := s.t, s.model.Metrics()
	all := s.twin.report(s.twin.scores)
	must(t, "scored", m.Scored(), uint64(all.n))
	must(t, "correct", m.Correct(), uint64(all.correct))
	near(t, "accuracy", m.Accuracy(), all.accuracy, 1e-9, 0)
	near(t, "log-loss", m.LogLoss(), all.logLoss, 1e-9, all.slack)
	near(t, "macro F1", m.MacroF1(), all.macroF1, 1e-9, 0)
	must(t, "labels", fmt.Sprintf("%q", s.model.Labels()), fmt.Sprintf("%q", s.twin.labels))
	for i, label := range s.twin.labels {
		must(t, "confusion with none", m.Confusion(i, -1), uint64(all.confusion[label]["none"]))
		for j, other := range s.twin.labels {
			must(
				t, fmt.Sprintf("confusion of %q with %q", label, other), m.Confusion(i, j),
				uint64(all.confusion[label]["label "+other]),
			)
		}
	}
	last := s.twin.report(s.twin.scores[max(0, len(s.twin.scores)-100):])
	n, accuracy, logLoss := m.Rolling()
	must(t, "rolling: n", n, last.n)
	near(t, "rolling: accuracy", accuracy, last.accuracy, 1e-9, 0)
	near(t, "rolling: log-loss", logLoss, last.logLoss, 1e-9, last.slack)
}

func (s *twins) counts() {
	if s.twin.learned == 0 {
		return // River's dicts are still empty, the model's columns are declared
	}
	same(s.t, "counts", plain(s.t, s.model.Counts()), plain(s.t, s.twin.counts()))
}

// plain is a value as JSON has it.
func plain(t *testing.T, v any) (out any) {
	data, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(data, &out)
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// same compares two JSON values.
func same(t *testing.T, what string, got, want any) {
	switch want := want.(type) {
	case map[string]any:
		got, _ := got.(map[string]any)
		must(t, what, fmt.Sprintf("%q", slices.Sorted(maps.Keys(got))), fmt.Sprintf("%q", slices.Sorted(maps.Keys(want))))
		for key := range want {
			same(t, what+"."+key, got[key], want[key])
		}
	case float64:
		got, ok := got.(float64)
		must(t, what, ok, true)
		near(t, what, got, want, 1e-9, 0)
	default:
		must(t, what, fmt.Sprintf("%q", got), fmt.Sprintf("%q", want))
	}
}

// restore puts the model that a snapshot gives in the model's place.
func (s *twins) restore() {
	restored, err := model.Restore(s.g.spec, s.model.AppendState(nil))
	if err != nil {
		s.t.Fatal(err)
	}
	s.model = restored
}

// twinned are the classes that the twin has.
var twinned = []string{
	"Select", "union", "OneHotEncoder", "StatImputer", "StandardScaler", "MultinomialNB", "GaussianNB",
}

// has reports whether the twin has all classes of some steps.
func has(steps []river.Step) bool {
	for i := range steps {
		if !slices.Contains(twinned, steps[i].Class.Name) {
			return false
		}
		for _, arg := range steps[i].Args {
			branches, _ := arg.([][]river.Step)
			for _, branch := range branches {
				if !has(branch) {
					return false
				}
			}
		}
	}
	return true
}

// twinSpecs are the shipped specs and those of the tests.
func twinSpecs(t *testing.T) map[string]*model.Spec {
	specs := map[string]*model.Spec{}
	for _, name := range model.ShippedSpecs() {
		specs[name], _ = model.ShippedSpec(name)
	}
	files, err := filepath.Glob("river/rivertest/testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no specs: %v", err)
	}
	for _, file := range append(files, "testdata/transcripts/tiny.yaml") {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		s, err := model.ParseSpec(data)
		if err != nil {
			t.Fatal(err)
		}
		if has(s.Pipeline) {
			specs[strings.TrimSuffix(filepath.Base(file), ".yaml")] = s
		}
	}
	return specs
}

// tight is a spec whose limits a short log goes past.
func tight(r *rand.Rand, s *model.Spec) *model.Spec {
	out := *s
	out.DedupWindow = pick(&generator{Rand: r}, []int{0, 1, 2, 7, 20})
	out.Label.MaxValues = 1 + r.IntN(5)
	out.Inputs = slices.Clone(s.Inputs)
	for i := range out.Inputs {
		out.Inputs[i].MaxValues = 1 + r.IntN(6)
	}
	return &out
}

// twinSeeds are the logs of each spec, or that of LOCKSTEP_SEED.
func twinSeeds(t *testing.T) []uint64 {
	text := os.Getenv("LOCKSTEP_SEED")
	if text == "" {
		return []uint64{1, 2, 3, 4}
	}
	seed, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return []uint64{seed}
}

// TestTheTwinSaysTheSame feeds random logs to the model and to its twin. Run it with
// LOCKSTEP_SEED=N for other logs.
func TestTheTwinSaysTheSame(t *testing.T) {
	ever := map[string]int{}
	for name, spec := range twinSpecs(t) {
		for _, seed := range twinSeeds(t) {
			for _, limits := range []string{"own", "tight"} {
				t.Run(fmt.Sprintf("%s/%s/%d", name, limits, seed), func(t *testing.T) {
					r := rand.New(rand.NewPCG(seed, uint64(len(limits))))
					limited := spec
					if limits == "tight" {
						limited = tight(r, spec)
					}
					compare(t, r, limited, ever)
				})
			}
		}
	}
	for _, what := range []string{"learned", "rejected", "duplicate", "conflict", "tie", "too_many_values", "missing", "json_invalid", "too_long", "unknown_control", "genesis"} {
		if os.Getenv("LOCKSTEP_SEED") == "" && ever[what] == 0 {
			t.Errorf("it never happened: %s", what)
		}
	}
	t.Log(ever)
}

func compare(t *testing.T, r *rand.Rand, spec *model.Spec, ever map[string]int) {
	m, err := model.New(spec)
	if err != nil {
		t.Fatal(err)
	}
	s := &twins{t: t, g: newGenerator(r, spec), model: m, twin: newTwin(spec), ever: ever}
	var msg message
	defer func() {
		if t.Failed() {
			t.Logf("the test's name ends in its LOCKSTEP_SEED; at seq %d: %s id=%s %s", msg.Seq, msg.Subject, msg.ID, msg.Data)
		}
	}()
	for range 250 {
		msg = s.g.next()
		s.step(msg)
		if s.g.one(3) {
			s.predict()
			s.recall()
		}
		if s.g.one(10) {
			s.metrics()
		}
		if s.g.one(30) {
			s.counts()
		}
		if s.g.one(60) {
			s.restore()
		}
	}
	s.metrics()
	s.counts()
}

// class is a class of a category as a label.
func class(text string) model.Target { return model.Target{Type: model.Category, Text: text} }
