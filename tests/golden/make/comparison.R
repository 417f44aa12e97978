# Golden values of tests that compare models. Run once: Rscript tests/golden/make/comparison.R tests/golden/comparison.json
# R 4.2.2, pROC 1.18.0 (DeLong, its data set aSAH), survival 3.5-3 (Cox, R's own `lung`), MASS (proportional odds), stats.
suppressMessages({library(pROC); library(survival); library(MASS); library(jsonlite)})
out <- commandArgs(trailingOnly = TRUE)[1]
data(aSAH)
a <- data.frame(y = as.integer(aSAH$outcome == "Poor"), s = aSAH$s100b, n = aSAH$ndka, w = as.integer(aSAH$wfns))
a$fold <- (seq_len(nrow(a)) * 7) %% 3
of <- function(d, x) roc(d$y, d[[x]], direction = "<", quiet = TRUE)
two <- function(d, x, z) {
  t <- roc.test(of(d, x), of(d, z), method = "delong", paired = TRUE)
  list(z = unname(t$statistic), p = t$p.value, lo = t$conf.int[1], hi = t$conf.int[2])
}
# folds are independent: weighted sums of AUCs, variances of their differences added
each <- lapply(split(a, a$fold), function(d) {
  x <- of(d, "s"); z <- of(d, "w")
  list(n = nrow(d), gap = as.numeric(auc(x)) - as.numeric(auc(z)), var = var(x) + var(z) - 2 * cov(x, z), one = var(x), auc = as.numeric(auc(x)))
})
w <- sapply(each, `[[`, "n") / nrow(a)
gap <- sum(w * sapply(each, `[[`, "gap")); se <- sqrt(sum(w^2 * sapply(each, `[[`, "var")))

d <- lung[complete.cases(lung[, c("time", "status", "age", "sex", "ph.ecog", "wt.loss")]), ]
d$event <- as.integer(d$status == 2); d$fold <- (seq_len(nrow(d)) * 5) %% 4
tight <- coxph.control(eps = 1e-12, toler.chol = 1e-14)
small <- coxph(Surv(time, event) ~ ph.ecog + strata(fold), data = d, ties = "efron", control = tight)
large <- coxph(Surv(time, event) ~ ph.ecog + age + strata(fold), data = d, ties = "efron", control = tight)
cox <- anova(small, large)
none <- coxph(Surv(time, event) ~ age + strata(fold), data = d, ties = "efron", control = tight)

b0 <- glm(y ~ w + factor(fold), data = a, family = binomial, control = list(epsilon = 1e-14))
b1 <- glm(y ~ w + s + factor(fold), data = a, family = binomial, control = list(epsilon = 1e-14))
d$grade <- factor(pmin(d$ph.ecog, 2), ordered = TRUE)
fine <- list(reltol = 1e-15, maxit = 5000)
o0 <- polr(grade ~ sex + factor(fold), data = d, control = fine)
o1 <- polr(grade ~ sex + age + factor(fold), data = d, control = fine)
l0 <- lm(wt.loss ~ sex + factor(fold), data = d); l1 <- lm(wt.loss ~ sex + age + factor(fold), data = d)
p <- c(0.01, 0.04, 0.03, NA, 0.005, 0.04)
diffs <- c(0.021, -0.004, 0.035, 0.018, 0.002, 0.027)
nb <- mean(diffs) / sqrt((1 / 6 + 0.25) * var(diffs))
write(toJSON(list(
  asah = list(y = a$y, s = a$s, n = a$n, w = a$w, fold = a$fold),
  lung = list(time = d$time, event = d$event, age = d$age, sex = d$sex, ecog = d$ph.ecog, wt = d$wt.loss,
              grade = as.integer(d$grade) - 1, fold = d$fold),
  auc_s = as.numeric(auc(of(a, "s"))), var_s = var(of(a, "s")), ci_s = as.numeric(ci.auc(of(a, "s"), method = "delong"))[c(1, 3)],
  s_n = two(a, "s", "n"), s_w = two(a, "s", "w"),
  folds = list(gap = gap, se = se, p = 2 * pnorm(-abs(gap / se)), auc = sum(w * sapply(each, `[[`, "auc")),
               se_one = sqrt(sum(w^2 * sapply(each, `[[`, "one")))),
  cox = list(chi = cox$Chisq[2], p = cox[2, ncol(cox)]),
  cox_alone = 2 * diff(none$loglik),
  logistic = list(chi = b0$deviance - b1$deviance, p = pchisq(b0$deviance - b1$deviance, 1, lower.tail = FALSE)),
  odds = list(chi = o0$deviance - o1$deviance, p = pchisq(o0$deviance - o1$deviance, 1, lower.tail = FALSE)),
  linear = list(chi = as.numeric(2 * (logLik(l1) - logLik(l0)))),
  p = p, holm = p.adjust(p, method = "holm"),
  splits = list(differences = diffs, t = nb, p = 2 * pt(-abs(nb), 5))
), digits = NA, auto_unbox = TRUE, na = "null"), out)
