package model

import (
	"slices"

	"lockstep/model/river"
	"lockstep/model/river/compose"
	"lockstep/model/river/dummy"
	"lockstep/model/river/featureextraction"
	"lockstep/model/river/linearmodel"
	"lockstep/model/river/multiclass"
	"lockstep/model/river/naivebayes"
	"lockstep/model/river/optim"
	"lockstep/model/river/preprocessing"
	"lockstep/model/river/stats"
)

// registry lists every class that a spec can name.
var registry = []*river.Class{
	compose.Select,
	compose.Union,
	compose.Discard,
	compose.Prefixer,
	compose.Suffixer,
	compose.Renamer,
	compose.FuncTransformer,
	preprocessing.OneHotEncoder,
	preprocessing.StatImputer,
	preprocessing.PreviousImputer,
	preprocessing.StandardScaler,
	preprocessing.MinMaxScaler,
	preprocessing.MaxAbsScaler,
	preprocessing.Normalizer,
	preprocessing.OrdinalEncoder,
	naivebayes.MultinomialNB,
	naivebayes.GaussianNB,
	naivebayes.BernoulliNB,
	naivebayes.ComplementNB,
	linearmodel.LogisticRegression,
	linearmodel.LinearRegression,
	linearmodel.Perceptron,
	linearmodel.PAClassifier,
	linearmodel.PARegressor,
	linearmodel.SoftmaxRegression,
	multiclass.OneVsRestClassifier,
	featureextraction.TargetAgg,
	featureextraction.PolynomialExtender,
	dummy.NoChangeClassifier,
	dummy.PriorClassifier,
	dummy.StatisticRegressor,

	// Parameters of others.
	optim.SGD,
	optim.Adam,
	optim.AdaGrad,
	optim.RMSProp,
	optim.InverseScaling,
	optim.Log,
	optim.Hinge,
	optim.Squared,
	optim.Absolute,
	optim.Huber,
	optim.Quantile,
	stats.MeanClass,
	stats.VarClass,
	stats.EWMeanClass,
	stats.CountClass,
	stats.SumClass,
}

// Classes are the classes that a spec can name.
func Classes() []*river.Class { return slices.Clone(registry) }

// classNames are the names of the classes for some tasks.
func classNames(tasks ...river.Task) []string {
	var out []string
	for _, c := range registry {
		if slices.Contains(tasks, c.Task) {
			out = append(out, c.Name)
		}
	}
	return out
}

// findClass finds a class by its name and task, or returns nil.
func findClass(name string, tasks ...river.Task) *river.Class {
	i := slices.IndexFunc(registry, func(c *river.Class) bool { return c.Name == name && slices.Contains(tasks, c.Task) })
	if i < 0 {
		return nil
	}
	return registry[i]
}
