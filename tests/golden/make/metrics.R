# Golden values of the metrics of survival and of two classes. Run once, from the top of the repository:
#   Rscript tests/golden/make/metrics.R tests/golden/metrics.json
# R 4.2.2: survival 3.5-3, riskRegression 2022.11.28, pec 2022.05.04, pROC 1.18.0, jsonlite. The data are those that ship
# with R (lung, veteran, pbc; aSAH), and two drawn cohorts: whole months with many ties, and 90 % censored.
suppressMessages({library(survival); library(riskRegression); library(pec); library(pROC); library(jsonlite)})
out <- commandArgs(trailingOnly = TRUE)[1]

judged <- function(d, lp, times, tau) {
  # d: time, event, group. lp: risks, ties and all. The survival curves are exp(-H(t) exp(lp)) with a smooth H.
  S <- exp(-outer(exp(lp - mean(lp)), times / (2 * max(times))))
  d$r <- lp
  sc <- suppressMessages(Score(list(m = 1 - S), formula = Surv(time, event) ~ 1, data = d, times = times,
    metrics = c("auc", "brier"), summary = c("ibs", "ipa"), null.model = TRUE, cens.model = "km", se.fit = FALSE,
    conf.int = FALSE, contrasts = FALSE))
  auc <- sc$AUC$score; bs <- sc$Brier$score
  p <- suppressMessages(pec(list(m = cbind(1, S)), formula = Surv(time, event) ~ 1, data = d, times = c(0, times), exact = FALSE,
    start = 0, cens.model = "marginal", reference = TRUE, verbose = FALSE))
  km <- survfit(Surv(time, event) ~ 1, data = d)
  rm <- summary(km, rmean = tau)$table
  cox <- coxph(Surv(time, event) ~ factor(group), data = d, ties = "efron",
               control = coxph.control(eps = 1e-12, toler.chol = 1e-14))
  lr <- survdiff(Surv(time, event) ~ group, data = d)
  conc <- function(...) unname(concordance(Surv(time, event) ~ r, data = d, reverse = TRUE, ...)$concordance)
  list(time = d$time, event = d$event, group = d$group, risk = lp, times = times, survival = S, tau = tau,
    c = conc(), c_uno = conc(timewt = "n/G2"), c_uno_tau = conc(timewt = "n/G2", ymax = tau - 5e-4),  # ymax counts events at it
    auc = auc$AUC[auc$model == "m"], brier = bs$Brier[bs$model == "m"], brier_km = bs$Brier[bs$model == "Null model"],
    ipa = bs$IPA[bs$model == "m"], ibs_steps = bs$IBS[bs$model == "m"], ibs_steps_km = bs$IBS[bs$model == "Null model"],
    pec = p$AppErr$m, pec_km = p$AppErr$Reference,
    rmean = unname(rm["rmean"]), rmean_se = unname(rm["se(rmean)"]),
    log_rank = lr$chisq, coef = unname(coef(cox)), se = unname(sqrt(diag(vcov(cox)))), loglik = cox$loglik,
    hr = unname(exp(cbind(coef(cox), confint(cox)))))
}

l <- lung[complete.cases(lung[, c("time", "status", "age", "sex", "ph.ecog")]), ]
l$event <- as.integer(l$status == 2); l$group <- pmin(l$ph.ecog, 2)
v <- veteran; v$event <- v$status; v$group <- as.integer(v$celltype)
b <- pbc[1:312, ]; b$event <- as.integer(b$status == 2); b$group <- b$edema * 2
set.seed(1)
n <- 140; x <- round(rnorm(n), 1)
u <- pmin(ceiling(rexp(n) * 9 * exp(-x)), 40); w <- ceiling(runif(n) * 24)
ties <- data.frame(time = pmin(u, w), event = as.integer(u <= w), group = (x > -0.4) + (x > 0.4), x = x)
n <- 200; x <- rnorm(n); u <- rexp(n) * 80 * exp(-x); w <- rexp(n) * 6
heavy <- data.frame(time = round(pmin(u, w), 3), event = as.integer(u <= w), group = as.integer(x > 0), x = x)
cohorts <- list(
  lung = judged(l, round(l$age / 10) - l$sex + l$ph.ecog, c(90, 180, 270, 365, 500, 700), 700),
  veteran = judged(v, -v$karno / 20, c(20, 50, 100, 150, 200), 300),
  pbc = judged(b, round(log(b$bili), 1) + b$age / 50, c(400, 1000, 1500, 2000, 3000), 3000),
  ties = judged(ties, (round(10 * ties$x) + rep(c(-5, 5), 70)) / 16, c(2, 4, 7, 10, 14), 14),
  heavy = judged(heavy, heavy$x + sin(seq_len(200)), c(1, 2, 4, 7, 10), 10))

data(aSAH)
y <- as.integer(aSAH$outcome == "Poor")
classes <- lapply(c(s100b = "s100b", ndka = "ndka", wfns = "wfns"), function(name) {
  s <- as.numeric(aSAH[[name]])
  r <- roc(y, s, direction = "<", quiet = TRUE)
  best <- coords(r, "best", best.method = "youden", transpose = FALSE)
  list(score = s, auc = as.numeric(auc(r)), thresholds = r$thresholds[is.finite(r$thresholds)],
    sensitivities = r$sensitivities[is.finite(r$thresholds)], specificities = r$specificities[is.finite(r$thresholds)],
    best = as.list(best))
})
write(toJSON(list(survival = cohorts, outcome = y, classes = classes), digits = NA, auto_unbox = TRUE, na = "null"), out)
