# Golden values of survival metrics and ridge Cox. Run once: Rscript tests/golden/make/survival.R tests/golden/survival.json
# R 4.2.2, survival 3.5-3, pROC 1.18.0, jsonlite. The data are R's own `lung` (NCCTG; many tied times) and drawn numbers.
suppressMessages({library(survival); library(jsonlite)})
out <- commandArgs(trailingOnly = TRUE)[1]
d <- lung[complete.cases(lung[, c("time", "status", "age", "sex", "ph.ecog", "wt.loss")]), ]
d$event <- as.integer(d$status == 2)
risk <- round(d$age / 10) - d$sex + d$ph.ecog            # many ties in risk
fine <- d$age + 3 * d$ph.ecog + 0.01 * seq_len(nrow(d))  # none
conc <- function(r) unname(concordance(Surv(time, event) ~ r, data = d, reverse = TRUE)$concordance)
km <- survfit(Surv(time, event) ~ 1, data = d, conf.type = "log-log")
cens <- survfit(Surv(time, 1 - event) ~ 1, data = d)
two <- survdiff(Surv(time, event) ~ sex, data = d)
four <- survdiff(Surv(time, event) ~ ph.ecog, data = d)
x <- scale(as.matrix(d[, c("age", "sex", "ph.ecog", "wt.loss")]))
efron <- coxph(Surv(time, event) ~ x, data = d, ties = "efron", control = coxph.control(eps = 1e-12, toler.chol = 1e-14))
theta <- 30
pen <- coxph(Surv(time, event) ~ ridge(x[, 1], x[, 2], x[, 3], x[, 4], theta = theta, scale = FALSE), data = d,
             ties = "efron", control = coxph.control(eps = 1e-12, toler.chol = 1e-14, outer.max = 50))
base <- basehaz(coxph(Surv(time, event) ~ x, data = d, ties = "breslow"), centered = FALSE)
breslow <- coxph(Surv(time, event) ~ x, data = d, ties = "breslow", control = coxph.control(eps = 1e-12, toler.chol = 1e-14))
write(toJSON(list(
  time = d$time, event = d$event, risk = risk, fine = fine, sex = d$sex, ecog = d$ph.ecog,
  x = x[, ], theta = theta,
  c_tied = conc(risk), c_fine = conc(fine),
  uno = unname(concordance(Surv(time, event) ~ fine, data = d, reverse = TRUE, timewt = "n/G2", ymax = 700)$concordance),
  km = list(time = km$time, surv = km$surv, lower = km$lower, upper = km$upper, n = km$n.risk),
  logrank2 = two$chisq, logrank4 = four$chisq,
  efron = unname(coef(efron)), efron_loglik = efron$loglik[2], ridge = unname(coef(pen)),
  breslow = unname(coef(breslow)), basehaz = list(time = base$time, hazard = base$hazard)
), digits = NA, auto_unbox = TRUE), out)
