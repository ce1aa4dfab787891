# Les mots du panneau. Vouvoiement, phrases courtes, pas de jargon. Les espaces fines devant : ; ! ? et dans « »
# sont posées par le programme : on les tape ici comme des espaces ordinaires.

## Cadre
site-name = Mairie { $commune }
skip = Aller au contenu
places = Rubriques
place-home = Accueil
place-announcements = Annonces
place-conditions = À voir
place-demonstration = Démo
place-data = Données
place-accounts = Comptes
place-waiting = à regarder
about-link = Accessibilité, données, mentions
back-home = Revenir à l'accueil
save = Enregistrer
cancel = Annuler
for-technician = Précisions pour le technicien

## Nombres, dates, unités
age-now = à l'instant
age-seconds = il y a { $n }{"\u00A0"}s
age-minutes = il y a { $n }{"\u00A0"}min
age-hours = il y a { $n }{"\u00A0"}h
age-days = il y a { $n }{"\u00A0"}j
age-never = jamais reçu
hour = { $h }{"\u00A0"}h{"\u00A0"}{ $m }
hour-tick = { $h }{"\u00A0"}h
first-of-month = 1er
date = { $weekday } { $day } { $month } { $year }
moment = { $date } à { $hour }
date-unknown = date inconnue
week-of = semaine du { $date }
weekday-1 = lundi
weekday-2 = mardi
weekday-3 = mercredi
weekday-4 = jeudi
weekday-5 = vendredi
weekday-6 = samedi
weekday-7 = dimanche
weekday-short-1 = lun.
weekday-short-2 = mar.
weekday-short-3 = mer.
weekday-short-4 = jeu.
weekday-short-5 = ven.
weekday-short-6 = sam.
weekday-short-7 = dim.
month-1 = janvier
month-2 = février
month-3 = mars
month-4 = avril
month-5 = mai
month-6 = juin
month-7 = juillet
month-8 = août
month-9 = septembre
month-10 = octobre
month-11 = novembre
month-12 = décembre
bytes-kilo = ko
bytes-mega = Mo
bytes-giga = Go
unit-watt = W
unit-kilowatt = kW
unit-watt-hour = Wh
unit-kilowatt-hour = kWh
unit-volt-ampere = VA
unit-kilovolt-ampere = kVA
unit-var = var
unit-var-hour = varh
unit-kilovar-hour = kvarh
unit-volt = V
unit-ampere = A
unit-milliampere = mA
unit-hertz = Hz
unit-celsius = °C
unit-kelvin = K
unit-percent = %
unit-ppm = ppm
unit-litre = L
unit-cubic-metre = m³
unit-litre-per-hour = L/h
unit-litre-per-minute = L/min
unit-cubic-metre-per-hour = m³/h
unit-hectopascal = hPa
unit-bar = bar
unit-lux = lux
unit-decibel = dB
unit-microgram-per-cubic-metre = µg/m³
unit-second = s
unit-minute = min
unit-hour = h
unit-day = j
unit-metre = m
unit-millimetre = mm
unit-centimetre = cm
unit-degree = °
unit-none = -
state-closed = Fermé
state-open = Ouvert
state-open-power = Ouvert : puissance dépassée
state-open-voltage = Ouvert : surtension
state-open-shed = Ouvert : délestage
state-open-remote = Ouvert à distance
state-open-heat = Ouvert : surchauffe
state-no = Non
state-yes = Oui
state-not-announced = Sans objet
state-blue = Bleu
state-white = Blanc
state-red = Rouge
label-index = Index
label-flow = Débit
label-power = Puissance
label-state = État
quality-suspect = Valeur douteuse
quality-stale = Valeur ancienne
quality-bad = Pas de valeur
quality-why = { $word } : { $why }
quality-late = Valeur ancienne : plus de nouvelles
quality-never = Rien reçu pour l'instant
why-out-of-range = hors des limites prévues
why-implausible-step = saut invraisemblable
why-warming-up = l'appareil chauffe
why-device-fault = l'appareil signale un défaut
why-not-a-number = mesure illisible
why-no-answer = l'appareil ne répond pas
why-degraded = l'appareil n'est pas sûr de lui

## Accueil
home-title = Accueil
state-fine = Tout va bien.
state-things = { $n ->
    [one] Il y a { $shown } chose à regarder.
   *[other] Il y a { $shown } choses à regarder.
}
state-urgent = { $n ->
    [one] Il y a { $n } chose à regarder, sans attendre.
   *[other] { $urgent ->
        [one] Il y a { $n } choses à regarder, dont { $urgent } urgente.
       *[other] Il y a { $n } choses à regarder, dont { $urgent } urgentes.
    }
}
state-more = Voir quoi faire
tasks = Que voulez-vous faire ?
task-announce = Diffuser une annonce
task-announce-about = Écrire, écouter, diffuser
task-look = Voir ce qui est à regarder
task-look-about = Pannes, fuites, appareils muets
task-values = Lire les compteurs
task-values-about = Électricité, eau, air
task-data = Savoir où vont les données
task-data-about = Qui les reçoit, avec quel accord
task-accounts = Gérer les comptes
task-accounts-about = Qui peut entrer ici
task-account = Mon compte
task-account-about = Langue, mot de passe
values-title = Dernières valeurs
values-more = Autres mesures ({ $shown })
values-none = Aucun appareil n'est encore raccordé.

## Un point
spans = Durée affichée
span-day = Jour
span-week = Semaine
span-month = Mois
turn-before = Période précédente
turn-after = Période suivante
chart-title = { $label }, { $when }
summary-nothing = Aucune mesure sur cette période.
summary-gauge = Entre { $low } et { $high } ; en moyenne { $mean }.
summary-counter = Total : { $total }. Le plus fort : { $most } ({ $when }).
table-summary = Voir les chiffres en tableau
table-when = Quand
table-min = Le plus bas
table-mean = Moyenne
table-max = Le plus haut
table-amount = Consommation
table-what = Quoi
table-since = Depuis
table-until = Jusqu'à
table-who = Qui

## Annonces
announcements-title = Annonces
announcement-sent = C'est parti. L'annonce est dans la file.
announcement-stopped = L'annonce est arrêtée.
queue-title = En cours
queue-none = Les haut-parleurs se taisent.
queue-waiting = En attente
queue-held-quiet-hours = Elle sera diffusée à la fin des heures calmes. Seule une alerte peut passer avant.
queue-held-daily-budget = Le temps de diffusion du jour est épuisé : elle sera diffusée demain. Seule une alerte peut passer avant.
queue-held-unknown-time = La boîte ne connaît pas encore l'heure : elle attend de la connaître.
queue-preparing = En préparation
queue-playing = Diffusion en cours
queue-stop = Arrêter
asked-by = { $who }, { $when }
write-title = Écrire une annonce
field-text = Texte de l'annonce
text-hint = Écrivez comme vous parlez. Un carillon précède le texte.
field-class = Genre
class-ambiance = Ambiance
class-information = Information
class-important = Important
class-alert = Alerte
class-information-about = Attend son tour et respecte les heures calmes.
class-alert-about = Coupe tout le reste, jour et nuit. Pour un danger.
field-zones = Où
preview-ready = Voici ce que l'on entendra :
listen = Écouter
send = Diffuser
confirm-title = Diffuser cette alerte ?
confirm-about = Elle coupera toute autre annonce et sera entendue même la nuit.
confirm-zones = Zones :
confirm-send = Oui, diffuser l'alerte
confirm-edit = Modifier le texte
refused-empty = Écrivez le texte à dire.
refused-too-long = Le texte a { $length } caractères ; { $most } au plus peuvent être dits.
refused-no-zone = Cochez au moins une zone.
refused-unknown-zone = La zone « { $zone } » n'existe plus. Choisissez-en une autre.
refused-queue-full = { $n ->
    [one] { $shown } annonce attend déjà. Arrêtez-la ou patientez.
   *[other] { $shown } annonces attendent déjà. Arrêtez-en une ou patientez.
}
refused-voice = Le texte ne peut pas être dit : aucune voix ne marche sur ce boîtier. Prévenez le technicien.
refused-not-kept = L'annonce n'a pas pu être enregistrée. Réessayez ; si cela dure, prévenez le technicien.
journal-title = Déjà diffusé
journal-none = Rien n'a encore été diffusé.
end-played = entendu jusqu'au bout ({ $lasted })
end-cut = coupé par l'annonce n° { $by }, rejoué ensuite
end-stopped = arrêté par { $by }
end-failed = pas entendu

## À regarder
conditions-title = À regarder
condition-of = { $title } : { $subject }
subject-device = appareil « { $name } »
condition-since = Depuis :
condition-seen = Vu par { $who }, { $when }
condition-acknowledge = J'ai vu
severity-notice = À savoir
severity-warning = À réparer
severity-alarm = Urgent
faults-title = Le fichier de réglages a des fautes
faults-about = Ce qui est mal écrit n'est pas utilisé ; tout le reste marche. Montrez ceci au technicien.
closed-title = Terminé
closed-none = Rien pour l'instant.
gateway-title = Le boîtier
store-readings = { $n ->
    [one] { $shown } mesure gardée
   *[other] { $shown } mesures gardées
}
store-size = { $size } utilisés sur { $limit } prévus
store-lost = { $n ->
    [0] Aucune mesure perdue
    [one] { $shown } mesure perdue
   *[other] { $shown } mesures perdues
}
start-last = Dernier démarrage : { $when } ({ $why }).
start-last-undated = Dernier démarrage : { $why }.
start-ran = Il marchait depuis au moins { $ran }.
start-line = { $when } : { $why }
start-first = premier démarrage
start-restarted = programme arrêté puis relancé à la demande
start-rebooted = boîtier éteint ou redémarré normalement
start-power-cut = arrêt brutal, sans doute une coupure de courant
start-hardware-watchdog = le boîtier ne répondait plus et s'est redémarré seul
start-watchdog = le programme ne répondait plus et a été relancé seul
start-crash = le programme est tombé et a été relancé seul
starts-summary = Démarrages précédents
supply-unwatched = Alimentation : non surveillée, ce système n'en dit rien
supply-good = Alimentation : correcte
supply-low = Alimentation : trop faible en ce moment
supply-was-low = { $n ->
    [one] Alimentation : correcte en ce moment, trop faible { $shown } fois ({ $when })
   *[other] Alimentation : correcte en ce moment, trop faible { $shown } fois (la dernière : { $when })
}
card-written = Carte mémoire : { $size } écrits depuis l'installation, le { $date }
card-written-undated = Carte mémoire : { $size } écrits depuis l'installation
card-room = Place libre : { $free } sur { $all }
card-syncs = Temps d'écriture : { $usual } d'habitude, { $most } au plus dix-neuf fois sur vingt
card-life = Usure annoncée par la mémoire elle-même : { $percent }{"\u00A0"}% au plus
units-summary = Les parties du boîtier
unit-running = en marche
unit-pausing = tombé, redémarre
unit-gave-up = abandonné, attend quelqu'un
unit-stopped = arrêté

condition-configuration-fault-title = Un réglage est mal écrit
condition-configuration-fault-todo = Ce réglage n'est pas utilisé, le reste marche. Montrez les précisions au technicien.
condition-configuration-set-aside-title = Le fichier de la carte n'est pas utilisé
condition-configuration-set-aside-todo = Le boîtier marche avec ses derniers réglages valables. RESULTAT.txt, sur la carte, dit au technicien quoi corriger dans clocher.toml.
condition-port-unplugged-title = Un appareil est débranché
condition-port-unplugged-todo = Vérifiez la prise USB ou le câble. Dès qu'il est rebranché, tout reprend seul.
condition-device-silent-title = Un appareil ne répond plus
condition-device-silent-todo = Vérifiez qu'il est allumé et que son câble tient. S'il ne répond toujours pas après dix minutes, appelez le technicien.
condition-device-fault-title = Un appareil envoie des mesures illisibles
condition-device-fault-todo = Regardez s'il affiche une erreur ; éteignez-le et rallumez-le si c'est possible. Sinon, appelez le technicien.
condition-point-out-of-range-title = Une valeur sort des limites
condition-point-out-of-range-todo = Regardez si la valeur est possible. Si elle ne l'est pas, le capteur est à vérifier.
condition-water-leak-title = L'eau coule quand personne ne devrait en prendre
condition-water-leak-todo = Vérifiez robinets et chasses d'eau, puis fermez l'arrivée d'eau si rien ne l'explique.
condition-water-meter-silent-title = Un compteur d'eau n'a rien compté depuis un jour
condition-water-meter-silent-todo = C'est normal si personne n'est venu. Sinon, vérifiez le fil du compteur.
condition-air-stale-title = L'air d'une salle est à renouveler
condition-air-stale-todo = Ouvrez les fenêtres dix minutes.
condition-unit-gave-up-title = Une partie du boîtier s'est arrêtée
condition-unit-gave-up-todo = Le reste continue. Débranchez et rebranchez le boîtier ; si cela revient, appelez le technicien.
condition-clock-untrusted-title = L'heure du boîtier n'est pas sûre
condition-clock-untrusted-todo = Dès que la liaison internet marche, l'heure se règle seule et les mesures déjà prises reçoivent leur vraie date. Rien à faire, sauf si cela dure plus d'un jour : appelez alors le technicien.
condition-store-damaged-title = La mémoire du boîtier a été abîmée
condition-store-damaged-todo = Ce qui pouvait être sauvé l'a été ; ce qui manque est compté dans « Données ». Une coupure de courant peut suffire. Si cela revient, faites remplacer la carte par le technicien.
condition-store-refuses-writes-title = La carte mémoire est pleine ou refuse d'écrire
condition-store-refuses-writes-todo = Le boîtier mesure et diffuse toujours, mais ne peut plus garder longtemps ce qu'il mesure. Ne l'éteignez pas : ce qui attend serait perdu. Appelez le technicien aujourd'hui.
condition-readings-lost-title = Des mesures ont été perdues
condition-readings-lost-todo = Elles ne reviendront pas. Combien, quand et pourquoi : voyez « Données ». Prévenez le technicien, puis touchez « J'ai vu ».
condition-data-budget-title = Le forfait de données du mois s'épuise
condition-data-budget-todo = Au-delà, seules les alarmes partent ; les mesures attendent ici et rien n'est perdu. Si l'abonnement le permet, demandez au technicien de relever le volume prévu.
condition-peer-absent-title = Un serveur central ne vient plus chercher ses mesures
condition-peer-absent-todo = Rien n'est perdu : les mesures l'attendent ici. Prévenez son exploitant si cela dure.
condition-broker-silent-title = La messagerie des capteurs ne répond plus
condition-broker-silent-todo = Elle redémarre seule. Si cela dure, débranchez et rebranchez le boîtier.
condition-announcement-failed-title = Une annonce n'a pas été entendue
condition-announcement-failed-todo = Vérifiez que l'ampli est allumé, puis diffusez-la de nouveau.
condition-voice-missing-title = Le boîtier n'a pas de voix ou pas de son
condition-voice-missing-todo = Les annonces écrites ne peuvent pas être dites. Appelez le technicien.
condition-pin-unusable-title = Un relais ou un contact est inutilisable
condition-pin-unusable-todo = Le technicien doit vérifier le câblage et le réglage.
condition-supply-weak-title = Alimentation trop faible
condition-supply-weak-todo = Branchez le boîtier sur l'alimentation officielle du Raspberry Pi, avec un câble court et sans multiprise USB. Une tension trop basse le fait redémarrer et abîme la carte mémoire. Ce message s'efface un jour après la dernière baisse.
condition-card-slow-title = La carte mémoire est devenue lente
condition-card-slow-todo = Rien n'est perdu, mais une carte qui ralentit est souvent en fin de vie. Faites prévoir son remplacement par le technicien.
condition-card-nearly-full-title = La carte mémoire est presque pleine
condition-card-nearly-full-todo = Le boîtier marche encore, mais bientôt il ne pourra plus garder ce qu'il mesure. Faites venir le technicien cette semaine : il trouvera ce qui prend la place, ou mettra une carte plus grande.
condition-card-worn-title = La carte mémoire a beaucoup servi
condition-card-worn-todo = Elle marche encore. Faites prévoir son remplacement par le technicien dans les prochains mois.
condition-contact-alarm-title = Un contact signale une anomalie
condition-contact-alarm-todo = Allez voir sur place ce qui se passe.

## Démonstration
demonstration-title = Démonstration
demonstration-lead = Le boîtier mesure sans arrêt. Sa liaison internet est coupée de temps en temps. Voici ce que deviennent les mesures.
link-up-always = Liaison établie
link-up = Liaison établie depuis { $since }
link-down = Liaison coupée depuis { $since }
outage-none = Pas encore de coupure
outage-heading = Coupure n° { $n }
outage-sentence-none = La première coupure arrive bientôt.
outage-sentence-during = La liaison est coupée : { $buffered } mesures sur { $produced } sont déjà à l'abri ici.
outage-sentence-catching-up = La liaison est revenue : { $pulled } mesures sur { $produced } sont arrivées, les autres suivent.
outage-sentence-after = { $n ->
    [0] La coupure a duré { $lasted }. Rien n'était à mesurer.
    [one] La coupure a duré { $lasted }. La mesure prise pendant ce temps est arrivée.
   *[other] La coupure a duré { $lasted }. Les { $produced } mesures prises pendant ce temps sont toutes arrivées.
}
outage-sentence-lost = La coupure a duré { $lasted }. Sur { $produced } mesures, { $lost } sont perdues.
outage-totals = { $n ->
    [0] Depuis le début : { $produced } mesures prises, { $pulled } livrées, aucune perdue.
    [one] Depuis le début : { $produced } mesures prises, { $pulled } livrées, { $lost } perdue.
   *[other] Depuis le début : { $produced } mesures prises, { $pulled } livrées, { $lost } perdues.
}
figure-produced = Prises
figure-buffered = À l'abri sur la carte
figure-pulled = Livrées depuis
figure-lost = Perdues

## Données et accès
data-title = Données et accès
data-lead = Ce que le boîtier garde, qui le reçoit, et ce que vous pouvez effacer.
data-who = Qui reçoit les mesures
data-register = Voir le registre
data-personal = Données personnelles
data-consents = Voir et noter les accords
data-consents-see = Voir les accords
data-kept = Ce que le boîtier garde
data-classes = Qui peut recevoir quoi
data-erase = Effacer des données
data-erase-about = Vous pouvez effacer pour toujours ce qu'un appareil a mesuré, en entier ou jusqu'à une date.
data-erase-go = Choisir ce qui s'efface
list-and = { $first } et { $last }
partners-none = Aucun serveur n'est inscrit : les mesures ne sortent pas du boîtier.
partner-may = Peut prendre les mesures { $classes }.
partner-former = N'est plus inscrit : il ne peut plus rien prendre.
partner-never = N'est encore jamais venu.
partner-begun = Vient de commencer.
partner-upto-hour = A tout reçu jusqu'à { $hour }.
partner-upto-date = A tout reçu jusqu'au { $date } à { $hour }.
partner-upto-age = La dernière mesure reçue a été prise { $age }.
partner-upto-number = A tout reçu jusqu'à la mesure n° { $shown }.
class-public = Publiques
class-public-many = publiques
class-public-about = Elles ne disent rien de personne : l'air d'une salle, la pluie. Tout serveur inscrit peut les recevoir et les publier.
class-internal = Internes
class-internal-many = internes
class-internal-about = Pour les organismes qui travaillent avec la commune. Elles ne sont pas publiées.
class-personal = Personnelles
class-personal-many = personnelles avec accord
class-personal-about = Elles disent quelque chose d'une personne : quand elle est là, comment elle vit. Elles ne partent qu'avec son accord écrit, qu'elle peut retirer à tout moment.
class-count = { $n ->
    [0] Aucun appareil
    [one] { $shown } appareil
   *[other] { $shown } appareils
}
classes-hint = Le classement se fait dans les réglages du boîtier, avec le technicien.
kept-nothing = Rien n'est encore gardé.
kept-since = { $count }, la plus ancienne du { $date }.
kept-size = { $size } utilisés sur { $limit } prévus.
kept-oldest-first = Quand la place manque, les mesures déjà reçues par un serveur partent d'abord, les plus anciennes en tête.
kept-aside = { $n ->
    [one] Une partie abîmée de la mémoire a été mise de côté ({ $size }). Le technicien peut l'examiner.
   *[other] { $n } parties abîmées de la mémoire ont été mises de côté ({ $size }). Le technicien peut les examiner.
}
gaps-none = Aucune mesure n'a été perdue.
gaps-older = { $n ->
    [one] Avant cela, { $shown } autre mesure perdue ou retirée.
   *[other] Avant cela, { $shown } autres mesures perdues ou retirées.
}
gaps-erased = { $n ->
    [one] { $shown } mesure effacée à la demande de la mairie.
   *[other] { $shown } mesures effacées à la demande de la mairie.
}
gap = { $what } { $when } : { $cause }.
gap-lost = { $n ->
    [one] { $shown } mesure perdue
   *[other] { $shown } mesures perdues
}
gap-removed = { $n ->
    [one] { $shown } mesure retirée
   *[other] { $shown } mesures retirées
}
gap-at = le { $date } à { $hour }
gap-about = vers le { $date } à { $hour }
gap-day = le { $date } entre { $from } et { $to }
gap-days = entre le { $from } à { $from_hour } et le { $to } à { $to_hour }
gap-unknown = à une date inconnue
gap-size-limit = la place prévue était pleine
gap-size-limit-received = la place manquait, mais un serveur les avait déjà reçues
gap-damage = la carte mémoire a été abîmée
gap-card-refused = la carte mémoire refusait d'écrire
gap-erased = effacées à la demande de la mairie

## Registre
access-title = Qui a pris quoi, quand
access-lead = Les serveurs inscrits viennent chercher les mesures ici. Chaque visite est notée.
access-month = Ce mois-ci : { $used } échangés avec eux.
access-month-of = Ce mois-ci : { $used } sur { $limit }.
access-month-spent = Ce mois-ci : { $used } sur { $limit }. Le forfait est épuisé : seules les alarmes passent, le reste attend ici.
access-none = Personne n'a encore rien pris.
access-last = Dernière visite :
access-total = { $n ->
    [one] { $shown } mesure en tout
   *[other] { $shown } mesures en tout
}
access-hint = Ce qui se prend en ce moment est ajouté ici toutes les dix minutes, pour ménager la carte.
access-register = Registre
access-what = { $n ->
    [0] rien de nouveau
    [one] { $count } mesure (n° { $to })
   *[other] { $count } mesures (n° { $from } à { $to })
}
access-until = { $from }, jusqu'à { $until }
access-again = { $n ->
    [one] { $count } mesure redemandée (n° { $to })
   *[other] { $count } mesures redemandées (n° { $from } à { $to })
}
access-newer = Plus récent
access-older = Plus ancien

## Accords
consents-title = Accords sur les données personnelles
consents-lead = Une mesure personnelle ne part qu'avec l'accord écrit de la personne. S'il est retiré, l'envoi s'arrête aussitôt.
consents-no-points = Aucune mesure n'est classée personnelle.
consents-no-servers = Aucun serveur n'est autorisé à demander des données personnelles : elles restent toutes ici.
consents-unwritten = Un retrait n'est pas encore noté sur la carte mémoire. Il compte déjà, mais serait oublié si le boîtier s'arrêtait. Rouvrez cette page dans une minute ; si ce message reste, appelez le technicien.
consents-full = Il y a trop d'accords notés. Appelez le technicien.
personal-count = { $n ->
    [one] { $shown } appareil mesure quelque chose de personnel.
   *[other] { $shown } appareils mesurent quelque chose de personnel.
}
personal-none = Rien n'en part.
personal-all = { $n ->
    [one] Ses mesures partent, avec un accord.
   *[other] Leurs mesures partent, avec un accord.
}
personal-some = { $n ->
    [one] Les mesures de l'un d'eux partent, avec un accord.
   *[other] Les mesures de { $shown } d'entre eux partent, avec un accord.
}
flow-leaves = Part vers { $server }.
flow-leaves-in-part = Part en partie vers { $server }.
flow-stays = Ne part pas vers { $server }.
flow-given = Accord de { $person } du { $date }. Papier : { $paper }.
flow-given-for = Accord de { $person } du { $date }, pour : { $purpose }. Papier : { $paper }.
flow-given-unnamed = Un accord du { $date } est noté.
flow-configured = Accord inscrit dans les réglages du boîtier : « { $consent } »
flow-configured-unnamed = Un accord est inscrit dans les réglages du boîtier.
flow-unspoken = Aucun accord n'est noté.
flow-withdrawn = L'accord a été retiré { $when }.
flow-doubted = Les accords notés n'ont pas pu être relus. Notez de nouveau celui-ci, papier en main.
consent-give = Noter un accord
consent-give-go = Noter l'accord
consent-withdraw = Retirer l'accord
consent-withdraw-go = Retirer maintenant
consent-withdraw-about = L'envoi s'arrête aussitôt. Ce qui est déjà parti ne revient pas : demandez à celui qui l'a reçu de l'effacer.
consent-noted = L'accord est noté. L'envoi peut commencer.
consent-ended = L'accord est retiré. Plus rien ne part.
consent-wrong-person = Écrivez le nom de la personne, en 60 caractères au plus.
consent-wrong-paper = Écrivez où est le papier signé, en 200 caractères au plus.
consent-wrong-purpose = L'usage est trop long : 200 caractères au plus.
consent-wrong-date = Choisissez le jour écrit sur le papier. Il ne peut pas être à venir.
consent-wrong-server = Cochez au moins un serveur.
consent-all-points = Tout l'appareil
field-person = Qui donne son accord
field-asked-by = Qui le demande
field-points = Pour quelles mesures
field-servers = Pour qui
field-purpose = Pour quel usage
purpose-hint = Facultatif. Par exemple : étude des économies d'énergie.
field-dated = Date du papier signé
field-paper = Où est le papier signé
paper-hint = Par exemple : classeur RGPD, secrétariat.
record-title = Tout ce qui a été noté
record-about = Rien ne s'efface de cette liste : elle prouve ce qui a été convenu.
record-given = Accord noté : { $things }, pour { $servers }.
record-withdrawn = Accord retiré : { $things }, pour { $servers }.
record-doubted = Les accords notés auparavant ne comptent plus.
record-doubted-about = La carte mémoire a été abîmée ; des retraits ont pu être perdus. Dans le doute, plus rien ne part.
record-asked-by = À la demande de { $person }.
record-by = Noté par { $who }, { $when }

## Effacer
erase-title = Effacer des données
erase-lead = Ce qui est effacé ne revient pas. Vous verrez d'abord ce qui part ; rien ne s'efface avant votre confirmation.
erase-choose = Que faut-il effacer ?
erase-pick = Choisissez…
erase-whole-device = { $device } – tout l'appareil
erase-former = { $name } (ancien appareil)
erase-all = Tout, depuis le début
erase-before = Seulement ce qui date d'avant un jour
field-what = Appareil ou mesure
field-how = Sur quelle période
field-before = Avant quel jour
before-hint = Pour le second choix. Ce jour-là et les suivants restent.
erase-go-on = Voir ce qui s'effacera
erase-wrong-what = Choisissez un appareil ou une mesure dans la liste.
erase-wrong-how = Choisissez la période : tout, ou avant un jour.
erase-wrong-date = Choisissez un jour : ce qui date d'avant s'effacera.
erase-busy = Un effacement est déjà en cours. Attendez qu'il soit fini.
erase-question = Effacer tout ce qu'a mesuré « { $label } » ?
erase-question-before = Effacer ce qu'a mesuré « { $label } » avant le { $date } ?
erase-amount = { $n ->
    [one] Cela fait { $shown } valeur gardée depuis le { $date }.
   *[other] Cela fait environ { $shown } valeurs gardées depuis le { $date }.
}
erase-amount-none = Aucune valeur n'est gardée pour cette période.
erase-goes = Les valeurs, les courbes et les totaux s'effacent ensemble.
erase-for-good = C'est pour toujours : ni vous ni le technicien ne pourrez les retrouver ici.
erase-stays-new = L'appareil continue de mesurer : de nouvelles valeurs arriveront ensuite. Pour l'arrêter, voyez le technicien.
erase-stays-after = Ce qui a été mesuré depuis cette date reste, ainsi que les valeurs dont la date est inconnue.
erase-copies = Des copies ont pu être prises. Demandez-leur d'effacer la leur :
erase-no-copies = Aucun serveur n'en a reçu de copie.
erase-noted = Le journal gardera votre nom et le moment, sans les valeurs.
erase-confirm = Oui, effacer pour toujours
erase-at-work = Effacement en cours. Cela peut prendre quelques minutes ; vous pouvez quitter cette page.
erase-at-work-of = Effacement en cours : { $done } sur { $of }. Cela peut prendre quelques minutes ; vous pouvez quitter cette page.
erase-look-again = Actualiser
erased-title = Déjà effacé
erased-none = Rien n'a encore été effacé.
erased-all = { $label }, en entier :
erased-before = { $label }, avant le { $date } :
erased-at-work = en cours.
erased-interrupted = interrompu par un arrêt du boîtier. Recommencez pour être sûr : cela ne coûte rien.
erased-count = { $n ->
    [0] il n'y avait rien à effacer.
    [one] { $shown } valeur effacée.
   *[other] { $shown } valeurs effacées.
}
erased-refused = { $n ->
    [0] pas effacé, la carte mémoire a refusé. Recommencez ; si cela dure, appelez le technicien.
    [one] { $shown } valeur effacée, puis la carte mémoire a refusé. Recommencez ; si cela dure, appelez le technicien.
   *[other] { $shown } valeurs effacées, puis la carte mémoire a refusé. Recommencez ; si cela dure, appelez le technicien.
}

## Comptes
accounts-title = Comptes
accounts-add = Ajouter quelqu'un
accounts-add-button = Ajouter et donner un code
account-you = vous
account-since = ajouté { $when }
account-waiting = N'a pas encore choisi son mot de passe
account-change = Modifier
account-set-role = Changer le rôle
account-reset = Donner un nouveau code
account-remove = Retirer
account-exists = Il y a déjà un compte à ce nom.
accounts-full = Il y a trop de comptes. Retirez-en un d'abord.
account-gone = Ce compte n'existe plus.
last-mayor = Il doit rester au moins un compte « Maire ».
remove-question = Retirer le compte de { $name } ?
remove-about = Cette personne ne pourra plus entrer. Ce qu'elle a fait reste dans les journaux.
remove-confirm = Oui, retirer
code-for = Code pour { $name }
code-about = Notez-le maintenant : il ne sera plus montré. Il sert de mot de passe à la première visite, puis chacun choisit le sien.
role-mayor = Maire
role-mayor-about = Peut tout faire.
role-secretary = Secrétariat
role-secretary-about = Diffuse les annonces, suit ce qui est à regarder, note les accords.
role-technician = Technique
role-technician-about = Installe, essaie, gère les comptes sauf ceux du maire. Pas d'alerte.
role-viewer = Lecture
role-viewer-about = Regarde sans rien changer. Ne voit pas les mesures personnelles.
field-role = Rôle
field-name = Nom
field-password = Mot de passe
field-new-password = Mot de passe choisi
field-current = Mot de passe actuel
field-again = Le même, une seconde fois
field-code = Code du boîtier
name-wrong = Écrivez un nom, de 60 caractères au plus.
account-title = Mon compte
account-language = Langue des pages
account-change-password = Changer de mot de passe
sign-out = Se déconnecter

## Entrer
sign-in-title = Se connecter
sign-in-lead = Le boîtier de la commune : compteurs, capteurs, haut-parleurs.
sign-in-password-hint = Ou le code reçu, la première fois.
sign-in-button = Entrer
sign-in-wrong = Le nom ou le mot de passe ne va pas. Vérifiez les deux.
sign-in-forgotten = Mot de passe oublié ? Le maire ou le technicien peut vous donner un nouveau code.
claim-title = Première visite
claim-lead = Ce boîtier n'a pas encore de propriétaire. Créez le compte du maire.
claim-code-hint = Trois groupes de quatre, sur l'étiquette ou l'écran du boîtier.
claim-code-wrong = Ce n'est pas le code de ce boîtier. Relisez-le.
claim-name-hint = Prénom et nom. Il signera les annonces.
claim-button = Créer le compte
password-title = Choisir un mot de passe
password-lead = Votre code a servi. Choisissez maintenant votre mot de passe.
password-hint = Douze caractères au moins. Une phrase que vous seul connaissez convient bien.
password-short = Il en faut { $shown } caractères au moins. Ajoutez un mot.
password-long = Il est trop long.
password-known = On le devinerait : nom, commune ou code. Choisissez autre chose.
password-monotonous = Il répète toujours les mêmes caractères. Choisissez autre chose.
password-differs = Les deux ne sont pas pareils. Tapez-le de nouveau.
password-current-wrong = Ce n'est pas votre mot de passe actuel.

## Quand cela ne va pas
problem-not-found = Page introuvable
problem-not-found-text = Cette page n'existe pas, ou plus.
problem-method = Demande impossible
problem-method-text = Cette page ne reçoit pas de formulaire.
problem-too-large = Envoi trop grand
problem-too-large-text = Le formulaire est trop long. Raccourcissez-le.
problem-unreadable = Demande illisible
problem-unreadable-text = La demande est arrivée incomplète. Revenez en arrière et recommencez.
problem-forbidden = Pas pour ce compte
problem-forbidden-text = Votre rôle ne permet pas cela. Demandez au maire si vous en avez besoin.
problem-cross-site = Formulaire périmé
problem-cross-site-text = La page était ouverte depuis trop longtemps, ou ne vient pas d'ici. Rouvrez-la et recommencez.
problem-slow = Un instant
problem-slow-text = { $n ->
    [one] Trop d'essais. Réessayez dans { $shown } seconde.
   *[other] Trop d'essais. Réessayez dans { $shown } secondes.
}
problem-busy = Le boîtier est occupé
problem-busy-text = Réessayez dans quelques secondes.
problem-store = La carte mémoire ne répond pas
problem-store-text = Le boîtier n'arrive pas à la lire ou à y écrire. Il continue de mesurer et de diffuser. Réessayez dans une minute ; si cela dure, appelez le technicien sans éteindre le boîtier.
problem-fell = Quelque chose s'est mal passé
problem-fell-text = La page n'a pas pu être préparée. Réessayez ; si cela dure, appelez le technicien.

## Mentions
about-title = Accessibilité, données, mentions
about-access-title = Accessibilité : non conforme
about-access-state = Ce panneau n'a pas encore été audité selon le RGAA 4.1. Sans audit, la loi demande de le déclarer « non conforme ».
about-access-done = Il est fait pour être utilisé au clavier, avec un lecteur d'écran, agrandi, en clair ou en sombre et sans JavaScript. Aucun état n'est dit par la couleur seule. Chaque dessin de mesures a sa phrase et son tableau ; chaque annonce a son texte.
about-access-contact = Si une page vous résiste, dites-le à la mairie : on vous donnera l'information autrement.
about-access-rights = Sans réponse, vous pouvez saisir le Défenseur des droits (defenseurdesdroits.fr, ou 09{"\u00A0"}69{"\u00A0"}39{"\u00A0"}00{"\u00A0"}00).
about-data-title = Données
about-data-where = Les mesures et les comptes restent sur ce boîtier, à la mairie. Seuls les serveurs autorisés par la commune viennent les chercher, et le registre dit qui, quand et combien. Une mesure qui parle d'une personne ne part qu'avec son accord, noté ici ; le maire peut effacer ce qui a été mesuré.
about-data-who = Les comptes portent un nom, un rôle et l'empreinte d'un mot de passe. Le maire peut les retirer. Pour vos droits, adressez-vous à la mairie ou à son délégué à la protection des données.
about-data-cookie = Un seul cookie, nécessaire pour rester connecté. Pas de mesure d'audience, rien ne vient d'ailleurs.
about-publisher-title = Qui publie
about-publisher = La commune, sur son propre boîtier. Le logiciel est Clocher.
