package model

import (
	"lockstep/model/river"
	"lockstep/model/river/stats"
)

// Metrics are what the model's predictions were worth: each learned event was
// predicted first and is scored here before it is learned. A prediction of
// nothing counts as wrong.
//
// Source: river.metrics.Accuracy, MacroF1, CrossEntropy, ConfusionMatrix and
// river.utils.Rolling. Unlike River, whose CrossEntropy passes over a label
// without a probability, such a label counts here with the probability 1e-15.
type Metrics struct {
	scored    uint64
	correct   uint64
	loss      stats.Mean
	confusion [][]uint64 // by true class, by predicted class + 1; 0 is none; rows grow as needed
	window    [rollingWindow]score

	kind   FieldType  // the label's
	errors regression // of a number; all that is above but scored is unused then
	roc    rocCurve   // of a boolean

	// No part of the state: see Sample.
	sampler  func() (next uint64)
	sampleAt uint64
}

// rollingWindow is how many of the last events the rolling metrics cover.
const rollingWindow = 100

type score struct {
	correct bool
	loss    float64
}

// lossEps bounds the probability that the log-loss takes the logarithm of.
const lossEps = 1e-15

// none is the predicted class of a model that has learned nothing.
const none = -1

func (m *Metrics) update(class, predicted int, proba float64) {
	s := score{correct: class == predicted, loss: -river.Log(min(max(proba, lossEps), 1-lossEps))}
	m.window[m.scored%rollingWindow] = s
	m.scored++
	if s.correct {
		m.correct++
	}
	m.loss.Update(s.loss)
	m.confusion = river.Grow(m.confusion, class)
	m.confusion[class] = river.Grow(m.confusion[class], predicted+1)
	m.confusion[class][predicted+1]++
	m.sample()
}

// updateNumber scores the prediction of a number.
func (m *Metrics) updateNumber(label, predicted float64) {
	m.errors.update(m.scored, label, predicted)
	m.scored++
	m.sample()
}

func (m *Metrics) sample() {
	if m.sampler != nil && m.scored >= m.sampleAt {
		m.sampleAt = m.sampler()
	}
}

// Sample has f called once at events were scored, between two events of a
// message too; f says at how many events it is called next. It is no part of
// the state: a restored model has none.
func (m *Metrics) Sample(at uint64, f func() (next uint64)) { m.sampleAt, m.sampler = at, f }

// Scored is how many events were scored, Correct how many of them correctly.
func (m *Metrics) Scored() uint64 { return m.scored }

// Correct is how many events were predicted correctly.
func (m *Metrics) Correct() uint64 { return m.correct }

// Accuracy is the share of events predicted correctly, 0 before any.
func (m *Metrics) Accuracy() float64 { return share(m.correct, m.scored) }

// LogLoss is the mean of -log(probability given to the label), the natural
// logarithm.
func (m *Metrics) LogLoss() float64 { return m.loss.Mean }

// BalancedAccuracy is the mean over the labels given of the share of their
// events that was predicted correctly.
func (m *Metrics) BalancedAccuracy() float64 {
	sum, given := 0.0, 0
	for class, row := range m.confusion {
		if n := total(row); n > 0 {
			sum += share(m.Confusion(class, class), n)
			given++
		}
	}
	if given == 0 {
		return 0
	}
	return sum / float64(given)
}

// Kappa is Cohen's: how far the share of events predicted correctly is above what
// chance would give with the same numbers of each label, 1 at the most.
func (m *Metrics) Kappa() float64 {
	if m.scored == 0 {
		return 0
	}
	byChance := 0.0
	for class, row := range m.confusion {
		byChance += float64(share(total(row), m.scored) * share(m.predictedAs(class), m.scored))
	}
	if byChance == 1 {
		return 0
	}
	return (m.Accuracy() - byChance) / (1 - byChance)
}

// ROCAUC is the area under the ROC curve of a label that is a boolean, from ten
// thresholds as in River; 0 before both labels were given.
func (m *Metrics) ROCAUC() float64 { return m.roc.area() }

// predictedAs is how many events were predicted as a class.
func (m *Metrics) predictedAs(class int) (n uint64) {
	for other := range m.confusion {
		n += m.Confusion(other, class)
	}
	return n
}

func total(row []uint64) (n uint64) {
	for _, count := range row {
		n += count
	}
	return n
}

// Rolling gives accuracy and log-loss over the last n events, at most 100.
func (m *Metrics) Rolling() (n int, accuracy, logLoss float64) {
	n = int(min(m.scored, rollingWindow))
	var correct uint64
	for _, s := range m.window[:n] {
		if s.correct {
			correct++
		}
		logLoss += s.loss
	}
	if n > 0 {
		logLoss /= float64(n)
	}
	return n, share(correct, uint64(n)), logLoss
}

// MacroF1 is the mean over the labels of their F1 score; a label that was
// neither given nor predicted correctly has 0.
func (m *Metrics) MacroF1() float64 {
	sum := 0.0
	for class, row := range m.confusion {
		sum += share(2*m.Confusion(class, class), total(row)+m.predictedAs(class))
	}
	if len(m.confusion) == 0 {
		return 0
	}
	return sum / float64(len(m.confusion))
}

// Confusion is how many events of a class were predicted as another; the
// predicted class -1 is none.
func (m *Metrics) Confusion(class, predicted int) uint64 {
	if class >= len(m.confusion) || predicted+1 >= len(m.confusion[class]) {
		return 0
	}
	return m.confusion[class][predicted+1]
}

func share(part, whole uint64) float64 {
	if whole == 0 {
		return 0
	}
	return float64(part) / float64(whole)
}

func (m *Metrics) code(c *river.State) {
	c.U64(&m.scored)
	if m.kind == Number {
		m.errors.code(c)
		return
	}
	if m.kind == Boolean {
		m.roc.code(c)
	}
	c.U64(&m.correct)
	m.loss.Code(c)
	n := c.Length(len(m.confusion), 8)
	if c.Reading() {
		m.confusion = make([][]uint64, n)
	}
	for i := range m.confusion {
		c.U64s(&m.confusion[i])
	}
	for i := range m.window {
		c.Bool(&m.window[i].correct)
		c.F64(&m.window[i].loss)
	}
}
